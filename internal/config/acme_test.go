package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// acmeEdits break [acme.NAME].
func acmeEdits() []edit {
	return []edit{
		{
			"no CA", "[acme.le]\ndirectory = \"https://ca.example/dir\"\n", "",
			`stspub.toml:1: acme: missing; write a table [acme.letsencrypt] with email = "postmaster@example.com" and directory = "https://acme-v02.api.letsencrypt.org/directory"`,
		},
		{
			"a CA twice", "", "[acme.other]\ndirectory = 'https://ca.example/dir'\n",
			`stspub.toml:18: acme.other.directory: is that of [acme.le]; write one table for each CA`,
		},
		{
			"no directory", `directory = "https://ca.example/dir"`, ``,
			`stspub.toml:3: acme.le.directory: missing; write directory = "https://acme-v02.api.letsencrypt.org/directory" for Let's Encrypt`,
		},
		{
			"directory in clear", `"https://ca.example/dir"`, `"http://ca.example/dir"`,
			`stspub.toml:4: acme.le.directory: is not HTTPS; write a URL that begins with https://`,
		},
		{
			"directory with a password", `"https://ca.example/dir"`, `"https://me:geheim@ca.example/dir"`,
			`stspub.toml:4: acme.le.directory: has a user or password in it, which does not belong into this file`,
		},
		{
			"directory that is no URL", `"https://ca.example/dir"`, `"geheim"`,
			`stspub.toml:4: acme.le.directory: is no URL; write one like "https://api.example.com/path"`,
		},
		{
			"no mail address", `[acme.le]`, "[acme.le]\nemail = 'postmaster'",
			`stspub.toml:4: acme.le.email: "postmaster" is no mail address; write one like "postmaster@example.com"`,
		},
		{
			"CA file without certificates", `[acme.le]`, "[acme.le]\nca_file = 'no-pem'",
			`stspub.toml:4: acme.le.ca_file: "no-pem" holds no certificate; write CA certificates into it, as PEM`,
		},
		{
			"profile with a space", `[acme.le]`, "[acme.le]\nprofile = 'short lived'",
			`stspub.toml:4: acme.le.profile: "short lived" is no name of a profile; write one of those in the directory, like "shortlived"`,
		},
		{
			"preference of nothing", `[acme.le]`, "[acme.le]\nprefer = 0",
			`stspub.toml:4: acme.le.prefer: 0 is out of range; 1 to 1000`,
		},
		{
			"no orders", `[acme.le]`, "[acme.le]\norders = 0\nfailures = -1",
			`stspub.toml:4: acme.le.orders: 0 is out of range; 1 to 1000000
stspub.toml:5: acme.le.failures: -1 is out of range; 1 to 1000`,
		},
		{
			"period as an integer", `[acme.le]`, "[acme.le]\norders_period = 3\ndomain_period = '1y'",
			`stspub.toml:4: acme.le.orders_period: is an integer, want a duration with its unit: "3s"
stspub.toml:5: acme.le.domain_period: "1y" is no duration; write it like "90s", "36h", "10d" or "1w2d"`,
		},
		{
			"period of a second", `[acme.le]`, "[acme.le]\norders_period = '1s'",
			`stspub.toml:4: acme.le.orders_period: "1s" is out of range; "1m" to "30d"`,
		},
		{
			"staging that is denied", `directory = "https://ca.example/dir"`,
			"directory = 'https://acme-staging-v02.api.letsencrypt.org/directory'\nstaging = false\n[acme.good]\ndirectory = 'https://good.example/'",
			`stspub.toml:5: acme.le.staging: this directory is Let's Encrypt's for staging, whose certificates no sender trusts; leave staging out, or write the directory https://acme-v02.api.letsencrypt.org/directory`,
		},
		{
			"HMAC key alone", `[acme.le]`, "[acme.le]\neab_hmac_file = 'tsig'",
			`stspub.toml:3: acme.le.eab_kid: missing; write the key id that the CA gave you along with the HMAC key`,
		},
		{
			"key id alone", `[acme.le]`, "[acme.le]\neab_kid = 'kid'",
			`stspub.toml:3: acme.le.eab_hmac_file: missing; write the file with the HMAC key that the CA gave you along with the key id, eab_hmac_file = "/run/secrets/eab"`,
		},
		{
			"key id with a space", `[acme.le]`, "[acme.le]\neab_kid = 'geheim geheim'\neab_hmac_file = 'tsig'",
			`stspub.toml:4: acme.le.eab_kid: is no key id; write the one that the CA gave you, without spaces`,
		},
		{
			"HMAC key that is none", `[acme.le]`, "[acme.le]\neab_kid = 'kid'\neab_hmac_env = 'NO_BASE'",
			`stspub.toml:5: acme.le.eab_hmac_env: the secret is not base64; write the HMAC key alone, as the CA shows it`,
		},
		{
			"HMAC key in the file", `[acme.le]`, "[acme.le]\neab_kid = 'kid'\neab_hmac = 'geheim'",
			`stspub.toml:5: acme.le.eab_hmac: a secret does not belong into this file; write it to a file of its own and name that with eab_hmac_file, or an environment variable with eab_hmac_env`,
		},
	}
}

func TestNothingButStagingIsAWarning(t *testing.T) {
	t.Parallel()
	cfg, warnings, problems := load(t, edit{"", `[acme.le]`, "[acme.le]\nstaging = true", ""})
	want := `stspub.toml:4: acme.le: there is no CA but for staging: no sender trusts its certificates, so nothing is announced by a TXT record`
	if warnings != want || problems != "" || !cfg.ACME[0].Staging {
		t.Errorf("warnings %q, want %q; problems %q", warnings, want, problems)
	}
	if _, warnings, _ := load(t, edit{"", "", "[acme.try]\ndirectory = 'https://try.example/'\nstaging = true\n", ""}); warnings != "" {
		t.Errorf("with another CA: warnings %q", warnings)
	}
}

func TestMoreInFlightThanThePaceCarriesIsAWarning(t *testing.T) {
	t.Parallel()
	_, warnings, problems := load(t, edit{"", `[acme.le]`, "[acme.le]\nin_flight = 21\nper_second = 2", ""})
	want := `stspub.toml:4: acme.le.in_flight: per_second carries no more than 20 of these 21 orders at the same time; raise it if the CA allows that`
	if warnings != want || problems != "" {
		t.Errorf("warnings %q, want %q; problems %q", warnings, want, problems)
	}
	for _, keys := range []string{"in_flight = 20\nper_second = 2", "per_second = 1"} {
		if _, warnings, problems := load(t, edit{"", `[acme.le]`, "[acme.le]\n" + keys, ""}); warnings+problems != "" {
			t.Errorf("%q: warnings %q, problems %q", keys, warnings, problems)
		}
	}
}

// An account that is registered needs its binding no more, so the last configuration is served without it.
func TestLoadFilesDoesWithoutTheBinding(t *testing.T) {
	t.Parallel()
	text := strings.Replace(base, "[acme.le]", "[acme.le]\neab_kid = 'kid'\neab_hmac_file = 'hmac'", 1)
	path := inFolder(t, "stspub.toml", text, map[string]string{"token": secretWord, "hmac": "Z2VoZWlt"})
	if cfg, _, err := Load(path, noEnv); err != nil || cfg.ACME[0].EABKey != secretWord {
		t.Fatalf("Load: %v", err)
	}
	if err := os.Remove(filepath.Join(filepath.Dir(path), "hmac")); err != nil {
		t.Fatal(err)
	}
	cfg, warnings, err := LoadFiles(path, noEnv, os.ReadFile)
	if err != nil || len(warnings) != 1 || cfg.ACME[0].EABKeyID != "kid" || cfg.ACME[0].EABKey != "" {
		t.Errorf("LoadFiles: warnings %v, %v", warnings, errors.Unwrap(err))
	}
}
