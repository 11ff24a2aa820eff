package config

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stspub/stspub/internal/policygen"
)

const examplePath = "../../config.example.toml"

func readExample(t *testing.T) string {
	t.Helper()
	raw, err := os.ReadFile(examplePath)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// The secret of the example is in a file that only a server has; everything else is loaded as it is.
func TestExampleIsAValidConfigurationForOneDomain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	token := filepath.Join(dir, "token")
	writeFile(t, token, "fake-token\n", 0o600)
	example := readExample(t)
	if !strings.Contains(example, "/run/secrets/cloudflare") {
		t.Fatal("the example has no token file")
	}
	path := filepath.Join(dir, "stspub.toml")
	writeFile(t, path, strings.ReplaceAll(example, "/run/secrets/cloudflare", token), 0o644)

	got, warnings, err := Load(path, noEnv)
	if err != nil || len(warnings) > 0 {
		t.Fatalf("Load(example) = warnings %v, error %v, want none", warnings, err)
	}
	set := MXSet{Name: "eu", Policy: policygen.Policy{
		Mode: policygen.Testing, MaxAge: 14 * 24 * 3600, MX: []string{"mx1.example.net", "*.eu.mx.example.net"},
	}}
	want := &Config{
		Server: Server{Hostname: "sts.example.com", HTTPS: ":443", HTTP: ":80", Admin: "unix:/run/stspub/admin.sock"},
		Store:  Store{Path: "/var/lib/stspub/stspub.db", KeepEvents: 90 * day},
		ACME: []ACME{{
			Name: "letsencrypt", Email: "postmaster@example.com",
			Directory: "https://acme-v02.api.letsencrypt.org/directory",
			Budget:    standard(),
		}},
		Accounts: map[string]Account{"main": {
			Name: "main", Provider: "cloudflare", APIToken: "fake-token",
			APIURL: "https://api.cloudflare.com/client/v4",
		}},
		Publish: Publish{Settle: 5 * time.Minute, TTL: 5 * time.Minute, NodeGrace: 10 * time.Minute},
		Check:   Check{Every: 24 * time.Hour, HTTPPort: 80, HTTPSPort: 443, SMTPPort: 25},
		MXSets:  map[string]MXSet{"eu": set},
		Domains: []Domain{{Name: "example.org", MXSet: "eu", Publish: "zone", Account: "main"}},
		Digest:  got.Digest,
		Files:   got.Files,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Load(example), -want +got:\n%s", diff)
	}
}

// The defaults that the example names are those of the code: with all of them written out, nothing changes.
func TestExampleNamesTheDefaults(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "token"), "fake-token\n", 0o600)
	load := func(example string) *Config {
		path := filepath.Join(dir, "stspub.toml")
		writeFile(t, path, strings.ReplaceAll(example, "/run/secrets/cloudflare", "token"), 0o644)
		cfg, _, err := Load(path, noEnv)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Digest, cfg.Files = "", nil
		return cfg
	}
	want := load(readExample(t))
	example := readExample(t)
	for _, key := range []string{
		"https", "http", "admin", "url", "api_url", "settle", "ttl", "every", "http_port", "https_port", "smtp_port", "adopt",
		"prefer", "orders", "orders_period", "domain_orders", "domain_period", "failures", "in_flight", "per_second",
	} {
		set := strings.Replace(example, "\n#"+key+" = ", "\n"+key+" = ", 1)
		if set == example {
			t.Errorf("the example has no line #%s", key)
		}
		example = set
	}
	if diff := cmp.Diff(want, load(example)); diff != "" {
		t.Errorf("configuration with the defaults of the example written out, -without +with:\n%s", diff)
	}
}

// standard is the budget of an authority whose table says nothing about it.
func standard() Budget {
	return Budget{
		Orders: 280, OrdersPeriod: 3 * time.Hour, DomainOrders: 45, DomainPeriod: 7 * 24 * time.Hour,
		Failures: 4, InFlight: 8, PerSecond: 10,
	}
}

func TestExampleHasEveryKey(t *testing.T) {
	t.Parallel()
	example := readExample(t)
	missing, problems := missingKeys(example)
	if len(missing) > 0 || problems != nil {
		t.Fatalf("missing in the example: %v; wrong in it: %v", missing, problems)
	}
	// The check does see what is missing: each key in turn is taken away.
	lines, tried := strings.Split(example, "\n"), 0
	for i, line := range lines {
		key := regexp.MustCompile(`^#?([a-z_]+) = .*[^\[]$`).FindStringSubmatch(line)
		if key == nil || slices.Contains([]string{"directory", "provider", "server"}, key[1]) { // of several tables
			continue
		}
		tried++
		missing, _ := missingKeys(strings.Join(slices.Concat(lines[:i], lines[i+1:]), "\n"))
		if len(missing) != 1 || !strings.HasSuffix(missing[0], "."+key[1]) {
			t.Errorf("without line %d (%s) the example misses %v, want that key", i+1, line, missing)
		}
	}
	if tried < 70 {
		t.Errorf("%d keys of the example were tried, want all", tried)
	}
}

// missingKeys takes the comment signs off the example and returns which keys of the decoder's types are still not there,
// and what the decoder has against it.
func missingKeys(example string) (missing []string, problems error) {
	commented := regexp.MustCompile(`(?m)^#([a-z_]+ = |\[)`)
	f := &findings{file: "example"}
	doc := parse(commented.ReplaceAllString(example, "$1"), f)
	if doc == nil {
		return nil, f.err()
	}
	given := make(map[string]bool)
	visit(reflect.ValueOf(*doc), "", given)
	for key, ok := range given {
		if !ok {
			missing = append(missing, key)
		}
	}
	slices.Sort(missing)
	return missing, f.err()
}

// visit notes of every key below a value whether any table gives it.
func visit(v reflect.Value, path string, given map[string]bool) {
	switch {
	case v.Kind() == reflect.Map && v.Type().Elem() == reflect.TypeFor[list]():
		given[path] = v.Len() > 0
	case v.Kind() == reflect.Map:
		visit(reflect.Zero(v.Type().Elem()), path, given)
		for _, k := range v.MapKeys() {
			visit(v.MapIndex(k), path, given)
		}
	case v.Kind() == reflect.Slice:
		visit(reflect.Zero(v.Type().Elem()), path, given)
		for i := range v.Len() {
			visit(v.Index(i), path, given)
		}
	case v.Kind() == reflect.Struct && v.Type().Field(0).Name == "Line":
		for i := range v.NumField() {
			if key := v.Type().Field(i).Tag.Get("toml"); key != "" {
				visit(v.Field(i), strings.TrimPrefix(path+"."+key, "."), given)
			}
		}
	default:
		given[path] = given[path] || v.FieldByName("line").Int() > 0
	}
}

// A key of the decoder's types that visit could not see would be missed for ever.
func TestEveryKeyIsSeen(t *testing.T) {
	t.Parallel()
	given := make(map[string]bool)
	visit(reflect.ValueOf(document{}), "", given)
	for _, key := range []string{"server.hostname", "dns.stub", "account.key_env", "mxset.domains_file", "domain.adopt"} {
		if _, seen := given[key]; !seen {
			t.Errorf("visit does not see %s", key)
		}
	}
}
