package config

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/stspub/stspub/internal/policygen"
)

// Every key with another value than its default, in the forms that the other tests do not use.
const whole = `
server.hostname = "STS.example.com."
server.addresses = ["192.0.2.1", "::ffff:192.0.2.2", "2001:db8::1"]
server.proxies = ["192.0.2.7", "10.9.8.7/8"]
server.https = "[::1]:8443"
server.http = "off"
server.admin = "unix:admin.sock"
server.admin_tls = "127.0.0.1:8420"
server.admin_cert_file = "admin.pem"
server.admin_key_file = "admin.pem"
server.health = "127.0.0.1:0"
server.linger = "20s"
server.node = "node1"
server.node_address = "[2001:db8::1]:443"
server.state = "state"
store = { url = "sqlite:data/stspub.db", keep_events = "30d" }
publish.settle = "1d"
publish.ttl = "1m"
publish.node_grace = "1h"

[dns]
resolvers = ["192.0.2.53", "192.0.2.54:5353", "2001:db8::53", "[2001:db8::54]", "[2001:db8::55]:5353"]
[dns.stub]
"." = ["127.0.0.1:5300"]
"Example.COM." = ["127.0.0.1:5301", "127.0.0.2"]

[acme.own]
directory = "https://ca.example/dir"
ca_file = "ca.pem"
staging = true

[acme.last]
directory = "https://acme-staging-v02.api.letsencrypt.org/directory"
prefer = 9

[acme.first]
directory = "https://bound.example/dir"
prefer = 1
profile = "shortlived"
eab_kid = "kid-1"
eab_hmac_env = "EAB"
orders = 1
orders_period = "1d"
domain_orders = 2
domain_period = "2w"
failures = 3
in_flight = 4
per_second = 5

[account.main]
provider = "cloudflare"
api_token_env = "CLOUDFLARE"
api_url = "http://127.0.0.1:8080/client/v4/"

[account.bind]
provider = "rfc2136"
server = "ns1.example.com"
key_name = "StsPub."
key_algorithm = "HMAC-SHA512"
key_file = "tsig"

[account.knot]
provider = "rfc2136"
server = "[2001:db8::53]"
key_name = "k"
key_env = "KNOT"

[account.powerdns]
provider = "powerdns"
server = "https://pdns.example.com/dns/"
server_id = "second"
api_key_env = "POWERDNS"

[alias]
zone = "alias.example.com"
account = "bind"

[check]
every = "1w"
allow_private = ["10.1.2.3/8", "fd00::25"]
http_port = 8080
https_port = 8443
smtp_port = 2525
ca_file = "ca.pem"

[mxset.files]
mx = ["MX1.example.net"]
mode = "none"
max_age = 86400
domains = ["a.example", "B.example."]
domains_file = "lists/customers.txt"
publish = "alias"

[mxset.defaults]
mx = ["mx2.example.net"]
mode = "testing"
max_age = "1d"
publish = "zone"
account = "knot"

[[domain]]
name = "takes-all.example"
mxset = "defaults"

[[domain]]
name = "takes-account.example"
mxset = "defaults"
publish = "zone"

[[domain]]
name = "takes-none.example"
mxset = "defaults"
publish = "alias"
adopt = true

[[domain]]
name = "own-account.example"
mxset = "files"
publish = "zone"
account = "main"

[[domain]]
name = "same-account.example"
mxset = "files"
account = "bind"
`

func TestWholeConfiguration(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "stspub.toml"), whole, 0o644)
	writeFile(t, filepath.Join(dir, "tsig"), "\n Z2VoZWlt\r\n", 0o600)
	writeFile(t, filepath.Join(dir, "ca.pem"), caPEM(t), 0o644)
	writeFile(t, filepath.Join(dir, "admin.pem"), keyPairPEM(t), 0o600)
	mkdir(t, filepath.Join(dir, "lists"))
	const customers = "\ufeffd.example\r\n# comment\r\n\r\nc.example # x\r\n"
	writeFile(t, filepath.Join(dir, "lists", "customers.txt"), customers, 0o644)
	env := map[string]string{"CLOUDFLARE": "token", "KNOT": "a2V5", "POWERDNS": "changeme", "EAB": "+/9rZXk="}

	got, warnings, err := Load(filepath.Join(dir, "stspub.toml"), func(key string) string { return env[key] })
	if err != nil || len(warnings) > 0 {
		t.Fatalf("Load = warnings %v, error %v, want none", warnings, err)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	policy := func(mode policygen.Mode, mx string) policygen.Policy {
		return policygen.Policy{Mode: mode, MaxAge: 86400, MX: []string{mx}}
	}
	want := &Config{
		Server: Server{
			Proxies:  []netip.Prefix{netip.MustParsePrefix("192.0.2.7/32"), netip.MustParsePrefix("10.0.0.0/8")},
			Hostname: "sts.example.com", HTTPS: "[::1]:8443", Admin: "unix:" + at("admin.sock"), Health: "127.0.0.1:0",
			AdminTLS: "127.0.0.1:8420", AdminCertFile: at("admin.pem"), AdminKeyFile: at("admin.pem"),
			Linger: 20 * time.Second, Node: "node1", NodeAddress: "[2001:db8::1]:443", State: at("state"),
			Addresses: []netip.Addr{
				netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::1"),
			},
		},
		Store: Store{Path: at("data/stspub.db"), KeepEvents: 30 * day},
		DNS: DNS{
			Resolvers: []string{"192.0.2.53:53", "192.0.2.54:5353", "[2001:db8::53]:53", "[2001:db8::54]:53", "[2001:db8::55]:5353"},
			Stub:      map[string][]string{".": {"127.0.0.1:5300"}, "example.com": {"127.0.0.1:5301", "127.0.0.2:53"}},
		},
		ACME: []ACME{
			{Name: "own", Directory: "https://ca.example/dir", CAFile: at("ca.pem"), Staging: true, NoHTTP: true, Budget: standard()},
			{
				Name: "first", Directory: "https://bound.example/dir", Profile: "shortlived", EABKeyID: "kid-1", EABKey: "\xfb\xffkey",
				NoHTTP: true,
				Budget: Budget{
					Orders: 1, OrdersPeriod: 24 * time.Hour, DomainOrders: 2, DomainPeriod: 14 * 24 * time.Hour,
					Failures: 3, InFlight: 4, PerSecond: 5,
				},
			},
			{Name: "last", Directory: "https://acme-staging-v02.api.letsencrypt.org/directory", Staging: true, NoHTTP: true, Budget: standard()},
		},
		Accounts: map[string]Account{
			"main": {Name: "main", Provider: "cloudflare", APIToken: "token", APIURL: "http://127.0.0.1:8080/client/v4"},
			"bind": {
				Name: "bind", Provider: "rfc2136", Server: "ns1.example.com:53", KeyName: "stspub",
				KeyAlgorithm: "hmac-sha512", Key: "Z2VoZWlt",
			},
			"powerdns": {
				Name: "powerdns", Provider: "powerdns", Server: "https://pdns.example.com/dns", ServerID: "second", APIKey: "changeme",
			},
			"knot": {
				Name: "knot", Provider: "rfc2136", Server: "[2001:db8::53]:53", KeyName: "k",
				KeyAlgorithm: "hmac-sha256", Key: "a2V5",
			},
		},
		Alias:   Alias{Zone: "alias.example.com", Account: "bind"},
		Publish: Publish{Settle: 24 * time.Hour, TTL: time.Minute, NodeGrace: time.Hour},
		Check: Check{
			Every: 168 * time.Hour, HTTPPort: 8080, HTTPSPort: 8443, SMTPPort: 2525, CAFile: at("ca.pem"),
			AllowPrivate: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::25/128")},
		},
		MXSets: map[string]MXSet{
			"files":    {Name: "files", Policy: policy(policygen.None, "mx1.example.net")},
			"defaults": {Name: "defaults", Policy: policy(policygen.Testing, "mx2.example.net")},
		},
		Domains: []Domain{
			{Name: "a.example", MXSet: "files", Publish: "alias", Account: "bind"},
			{Name: "b.example", MXSet: "files", Publish: "alias", Account: "bind"},
			{Name: "c.example", MXSet: "files", Publish: "alias", Account: "bind"},
			{Name: "d.example", MXSet: "files", Publish: "alias", Account: "bind"},
			{Name: "own-account.example", MXSet: "files", Publish: "zone", Account: "main"},
			{Name: "same-account.example", MXSet: "files", Publish: "alias", Account: "bind"},
			{Name: "takes-account.example", MXSet: "defaults", Publish: "zone", Account: "knot"},
			{Name: "takes-all.example", MXSet: "defaults", Publish: "zone", Account: "knot"},
			{Name: "takes-none.example", MXSet: "defaults", Publish: "alias", Account: "bind", Adopt: true},
		},
		Digest: got.Digest,
		Files: map[string][]byte{
			at("stspub.toml"): []byte(whole), at("lists/customers.txt"): []byte(customers),
		},
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
		t.Errorf("Load, -want +got:\n%s", diff)
	}
}

func TestLoadFilesMakesTheSameAgainWithoutTheFiles(t *testing.T) {
	t.Parallel()
	list := strings.Replace(base, `max_age = "2w"`,
		"max_age = '2w'\npublish = 'zone'\naccount = 'main'\ndomains_file = 'list'", 1)
	path := inFolder(t, "stspub.toml", list, map[string]string{"list": "example.com\n", "token": "x"})
	want, _, err := Load(path, noEnv)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, "[server", 0o644)
	writeFile(t, filepath.Join(filepath.Dir(path), "list"), "", 0o644)
	got, _, err := LoadFiles(path, noEnv, func(path string) ([]byte, error) {
		content, found := want.Files[path]
		if !found {
			t.Errorf("read %s, which is not kept", path)
		}
		return content, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("LoadFiles, -want +got:\n%s", diff)
	}
}

// What is beside the configuration's own files may be gone when it is to be served again.
func TestLoadFilesDoesWithoutSecretsAndCertificates(t *testing.T) {
	t.Parallel()
	text := strings.Replace(base, `directory = "https://ca.example/dir"`, `directory = "https://ca.example/dir"
ca_file = "ca.pem"`, 1) + `
[account.bind]
provider = "rfc2136"
server = "192.0.2.53"
key_name = "stspub"
key_file = "tsig"
[account.env]
provider = "cloudflare"
api_token_env = "CLOUDFLARE"
[check]
ca_file = "ca.pem"
`
	path := inFolder(t, "stspub.toml", text, map[string]string{"token": secretWord, "tsig": "Z2VoZWlt", "ca.pem": caPEM(t)})
	env := map[string]string{"CLOUDFLARE": secretWord}
	getenv := func(key string) string { return env[key] }
	want, _, err := Load(path, getenv)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(path)
	for _, name := range []string{"token", "ca.pem"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, filepath.Join(dir, "tsig"), secretWord+"!", 0o600)
	env["CLOUDFLARE"] = ""
	if _, _, err := Load(path, getenv); err == nil {
		t.Fatal("Load takes a configuration without its secrets")
	}
	got, warnings, err := LoadFiles(path, getenv, os.ReadFile)
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	for _, w := range warnings {
		said = append(said, strings.ReplaceAll(w.String(), dir+"/", ""))
	}
	wantSaid := []string{
		`stspub.toml:5: acme.le.ca_file: read "ca.pem": no such file or directory`,
		"stspub.toml:8: account.main.api_token_file: there is no such file; write the path of the file that holds the secret",
		"stspub.toml:23: account.bind.key_file: the secret is not base64; write the secret of the TSIG key alone, " +
			"as it stands behind the word secret in the server's configuration",
		"stspub.toml:26: account.env.api_token_env: environment variable CLOUDFLARE is not set or empty; set it to the secret",
		`stspub.toml:28: check.ca_file: read "ca.pem": no such file or directory`,
	}
	if diff := cmp.Diff(wantSaid, said); diff != "" {
		t.Errorf("warnings, -want +got:\n%s", diff)
	}
	want.ACME[0].CAFile, want.Check.CAFile = "", ""
	for i, name := range []string{"main", "bind", "env"} {
		a := want.Accounts[name]
		a.APIToken, a.Key, a.Fault = "", "", warnings[i+1].String()
		want.Accounts[name] = a
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("LoadFiles, -want +got:\n%s", diff)
	}
}

// caPEM returns the certificate of a test server as PEM.
func caPEM(t *testing.T) string {
	t.Helper()
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
}

// keyPairPEM is a certificate and its key.
func keyPairPEM(t *testing.T) string {
	t.Helper()
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	key, err := x509.MarshalPKCS8PrivateKey(server.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})) +
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
}

func TestLongestAliasZone(t *testing.T) {
	t.Parallel()
	cfg, _, problems := load(t, edit{new: "[alias]\naccount = 'main'\nzone = '" + longZone[4:] + "'\n"})
	if problems != "" {
		t.Fatal(problems)
	}
	owner := policygen.Name("example.org").Label() + ".eu" + sharedPrefix + cfg.Alias.Zone
	if len(owner) != maxNameOctets {
		t.Errorf("an owner name below the longest zone has %d octets, want %d", len(owner), maxNameOctets)
	}
}

func TestDigestNamesTheContentOfFileAndLists(t *testing.T) {
	t.Parallel()
	list := strings.Replace(base, `max_age = "2w"`,
		"max_age = '2w'\npublish = 'zone'\naccount = 'main'\ndomains_file = 'list'", 1)
	digest := func(config, list, token string) string {
		path := inFolder(t, "stspub.toml", config, map[string]string{"list": list, "token": token})
		cfg, _, err := Load(path, noEnv)
		if err != nil {
			t.Fatal(err)
		}
		return cfg.Digest
	}
	first := digest(list, "example.com\n", "a")
	if again := digest(list, "example.com\n", "b"); again != first || len(first) != 64 {
		t.Errorf("same files, another folder and secret: digest %s, want %s", again, first)
	}
	for what, other := range map[string]string{
		"another file": digest(list+"#", "example.com\n", "a"),
		"another list": digest(list, "example.net\n", "a"),
		"the list's first byte moved to the file": digest(list+"#", "xample.com\n", "a"),
	} {
		if other == first {
			t.Errorf("%s: digest is the same", what)
		}
	}
}

func TestSecretDoesNotPrint(t *testing.T) {
	t.Parallel()
	account := Account{Name: "main", APIToken: "geheim", Key: "geheim"}
	text, err := json.Marshal(account)
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("loaded account", "account", account, "token", account.APIToken)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("loaded account", "account", account, "token", account.APIToken)
	shown := string(text) + log.String()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		shown += fmt.Sprintf(verb+verb+verb, account, &account, account.APIToken)
	}
	if strings.Contains(shown, "geheim") || strings.Contains(strings.ToLower(shown), "67656865696d") {
		t.Errorf("a secret is shown: %s", shown)
	}
	if string(account.APIToken) != "geheim" {
		t.Errorf("string(secret) = %q, want the secret", string(account.APIToken))
	}
}

func TestParseDuration(t *testing.T) {
	t.Parallel()
	good := func(s string, want time.Duration) {
		t.Helper()
		if got, err := ParseDuration(s); err != nil || got != want {
			t.Errorf("ParseDuration(%q) = %v, %v, want %v", s, got, err, want)
		}
	}
	bad := func(s string) {
		t.Helper()
		if got, err := ParseDuration(s); err == nil {
			t.Errorf("ParseDuration(%q) = %v, want an error", s, got)
		}
	}
	good("2w", 14*day)
	good("1w2d", 9*day)
	good("2d1w", 9*day)
	good("36h", 36*time.Hour)
	good("1h30m", 90*time.Minute)
	good("1.5d", 36*time.Hour)
	good("250ms", 250*time.Millisecond)
	good("0s", 0)
	bad("")
	bad("5")                     // no unit
	bad("d")                     // no number
	bad("1y")                    // no such unit
	bad("1 d")                   // a space
	bad("-1d")                   // negative
	bad("+1d")                   // a sign
	bad("1.2.3d")                // no number
	bad("1W")                    // upper case
	bad("20000w")                // over 292 years
	bad("200000000h")            // the same in Go's own words
	bad("10000w10000w")          // the same as a sum
	bad("99999999999999999999d") // over 64 bits
}

// BenchmarkLoadDomainsFile reads 100,000 domains from a domains file: 4 MB in, an operator's reload.
func BenchmarkLoadDomainsFile(b *testing.B) {
	const count = 100_000
	var names strings.Builder
	for i := range count {
		fmt.Fprintf(&names, "customer-%d.example-%d.com\n", i, i%1000)
	}
	list := strings.Replace(base, `max_age = "2w"`,
		"max_age = '2w'\npublish = 'zone'\naccount = 'main'\ndomains_file = 'list'", 1)
	path := inFolder(b, "stspub.toml", list, map[string]string{"list": names.String(), "token": "x"})
	b.ReportAllocs()
	for b.Loop() {
		cfg, _, err := Load(path, noEnv)
		if err != nil {
			b.Fatal(err)
		}
		if len(cfg.Domains) != count+1 {
			b.Fatalf("%d domains, want %d", len(cfg.Domains), count+1)
		}
	}
}
