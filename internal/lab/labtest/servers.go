package labtest

import (
	cryptorand "crypto/rand"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	_ "modernc.org/sqlite" // to fill PowerDNS's database

	"github.com/stspub/stspub/internal/lab"
)

// StartBIND starts ISC BIND.
func StartBIND(t testing.TB, zones ...lab.Zone) *DNSServer {
	t.Helper()
	return startBIND(t, "update-policy { grant %s zonesub ANY; };", zones)
}

// StartTrustingBIND starts BIND with zones that everybody on this machine may change, with a key or without.
func StartTrustingBIND(t testing.TB, zones ...lab.Zone) *DNSServer {
	t.Helper()
	return startBIND(t, "allow-update { localhost; key %s; };", zones)
}

// startBIND starts BIND; who may change its zones is a format for the name of the key.
func startBIND(t testing.TB, who string, zones []lab.Zone) *DNSServer {
	t.Helper()
	s := newDNSServer(t, "BIND", zones)
	s.run(t, "named", "bind9", func(port int) []string {
		var conf strings.Builder
		fmt.Fprintf(&conf, `options {
  directory %[1]q; pid-file %[2]q; session-keyfile %[3]q;
  listen-on port %[4]d { 127.0.0.1; }; listen-on-v6 { none; };
  recursion no; dnssec-validation no; notify no; minimal-responses yes; empty-zones-enable no;
};
controls { };
`, s.dir, filepath.Join(s.dir, "named.pid"), filepath.Join(s.dir, "session.key"), port)
		for _, key := range []string{s.KeyName, s.Guest} {
			fmt.Fprintf(&conf, "key %q { algorithm %s; secret %q; };\n", key, s.KeyAlgorithm, s.Secret)
		}
		for _, z := range s.zones {
			fmt.Fprintf(&conf, "zone %q { type primary; file %q; %s };\n", z, z+".zone", fmt.Sprintf(who, s.KeyName))
		}
		s.write(t, "named.conf", conf.String())
		return []string{"-g", "-4", "-n", "1", "-c", filepath.Join(s.dir, "named.conf")}
	})
	return s
}

// StartKnot starts Knot DNS.
func StartKnot(t testing.TB, zones ...lab.Zone) *DNSServer {
	t.Helper()
	s := newDNSServer(t, "Knot", zones)
	s.run(t, "knotd", "knot", func(port int) []string {
		var conf strings.Builder
		fmt.Fprintf(&conf, `server:
  rundir: %[1]s
  listen: 127.0.0.1@%[2]d
  udp-workers: 1
  tcp-workers: 1
  background-workers: 1
database:
  storage: %[1]s
  journal-db-max-size: 512M
log:
  - target: stderr
    any: notice
key:
  - id: %[3]s
    algorithm: %[5]s
    secret: %[6]s
  - id: %[4]s
    algorithm: %[5]s
    secret: %[6]s
acl:
  - id: update
    key: %[3]s
    action: update
  - id: ask
    key: %[4]s
    action: query
template:
  - id: default
    storage: %[1]s
    file: "%%s.zone"
    zonefile-sync: -1
    zonefile-load: difference-no-serial
    journal-content: all
    journal-max-depth: 1000
    acl: [update, ask]
zone:
`, s.dir, port, s.KeyName, s.Guest, s.KeyAlgorithm, s.Secret)
		for _, z := range s.zones {
			fmt.Fprintf(&conf, "  - domain: %s\n", z)
		}
		s.write(t, "knot.conf", conf.String())
		return []string{"-c", filepath.Join(s.dir, "knot.conf")}
	})
	return s
}

// StartPowerDNS starts PowerDNS with its HTTP API, with a database of its own and without caches: with them it answers
// from the past for up to 21 seconds after an update.
func StartPowerDNS(t testing.TB, zones ...lab.Zone) *DNSServer {
	t.Helper()
	s := newDNSServer(t, "PowerDNS", zones)
	s.fillPowerDNS(t)
	s.APIKey = cryptorand.Text()
	s.run(t, "pdns_server", "pdns-server pdns-backend-sqlite3", func(port int) []string {
		web := freePort(t)
		s.API = fmt.Sprintf("http://127.0.0.1:%d", web)
		s.write(t, "pdns.conf", s.powerDNS()+fmt.Sprintf(`local-address=127.0.0.1
local-port=%d
socket-dir=%s
dnsupdate=yes
allow-dnsupdate-from=127.0.0.0/8
cache-ttl=0
query-cache-ttl=0
negquery-cache-ttl=0
zone-cache-refresh-interval=0
receiver-threads=1
distributor-threads=1
daemon=no
guardian=no
setuid=
setgid=
loglevel=4
api=yes
api-key=%s
webserver-address=127.0.0.1
webserver-port=%d
`, port, s.dir, s.APIKey, web))
		return []string{"--config-dir=" + s.dir}
	})
	return s
}

// powerDNS is the part of the configuration that names the database.
func (s *DNSServer) powerDNS() string {
	return "launch=gsqlite3\ngsqlite3-dnssec=yes\ngsqlite3-database=" + filepath.Join(s.dir, "pdns.db") + "\n"
}

// fillPowerDNS makes the database.
func (s *DNSServer) fillPowerDNS(t testing.TB) {
	t.Helper()
	const schemaFile = "/usr/share/pdns-backend-sqlite3/schema/schema.sqlite3.sql"
	schema, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatalf("PowerDNS's schema is not installed: %v: apt-get install pdns-backend-sqlite3", err)
	}
	db, err := sql.Open("sqlite", filepath.Join(s.dir, "pdns.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	exec := func(query string, args ...any) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), query, args...); err != nil {
			t.Fatalf("fill PowerDNS's database: %v", err)
		}
	}
	exec(string(schema))
	for _, key := range []string{s.KeyName, s.Guest} {
		exec("insert into tsigkeys(name, algorithm, secret) values(?, ?, ?)", key, s.KeyAlgorithm, s.Secret)
	}
	s.write(t, "pdns.conf", s.powerDNS())
	for _, z := range s.zones {
		s.pdnsutil(t, "load-zone", z, filepath.Join(s.dir, z+".zone"))
		exec("insert into domainmetadata(domain_id, kind, content) select id, 'TSIG-ALLOW-DNSUPDATE', ? from domains where name = ?", s.KeyName, z)
	}
}

func (s *DNSServer) pdnsutil(t testing.TB, args ...string) {
	t.Helper()
	path := find("pdnsutil")
	if path == "" {
		t.Fatal("pdnsutil is not installed: apt-get install pdns-server")
	}
	out, err := exec.CommandContext(t.Context(), path, append([]string{"--config-dir=" + s.dir}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("pdnsutil %v: %v\n%s", args, err, out)
	}
}

// StartCached starts a second PowerDNS on the database of one, with the caches that it has by default, but for that of what
// is not there: it does not hear of changes, and answers from the past for up to 21 seconds, as one behind a load balancer.
func (s *DNSServer) StartCached(t testing.TB) *DNSServer {
	t.Helper()
	c := *s
	c.dir, c.API = filepath.Join(s.dir, "cached"), ""
	if err := os.Mkdir(c.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	c.run(t, "pdns_server", "pdns-server pdns-backend-sqlite3", func(port int) []string {
		c.write(t, "pdns.conf", s.powerDNS()+fmt.Sprintf("local-address=127.0.0.1\nlocal-port=%d\nsocket-dir=%s\nreceiver-threads=1\n"+
			"distributor-threads=1\ndaemon=no\nguardian=no\nsetuid=\nsetgid=\nloglevel=4\nnegquery-cache-ttl=1\n", port, c.dir))
		return []string{"--config-dir=" + c.dir}
	})
	return &c
}
