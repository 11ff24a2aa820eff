package dev

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
)

// configuration is an ordinary one. What is marked is only for a laboratory: in the world, policy hosts are at port 443,
// MX at port 25, and DNS is found by delegation.
const configuration = `# stspub.toml of "stspub dev". Edit it, then send SIGHUP.

[server]
hostname = "{hostname}"
https = "{https}"
http = "{http}"
admin = "unix:{dir}/admin.sock"

[store]
url = "sqlite:{dir}/stspub.db"

[acme.lab]
email = "postmaster@provider.test"
directory = "{directory}"
ca_file = "ca.pem"

[dns]
resolvers = ["{dns}"]
stub = { "." = ["{dns}"] }    # laboratory

[account.lab]
provider = "rfc2136"
server = "{dns}"
key_name = "stspub"
key_file = "tsig.key"

[alias]
zone = "{alias}"
account = "lab"

[publish]
settle = "5s"                  # laboratory: 5m is the default
ttl = "60s"

[check]
every = "10s"                  # laboratory: 24h is the default
http_port = {http_port}              # laboratory
https_port = {https_port}             # laboratory
smtp_port = {smtp_port}             # laboratory
ca_file = "ca.pem"             # laboratory

[mxset.main]
mx = [
  "{mx1}",
# "{mx2}",
]
mode = "enforce"
max_age = "1w"

[[domain]]
name = "one.test"
mxset = "main"
publish = "zone"
account = "lab"

[[domain]]
name = "two.test"
mxset = "main"
publish = "shared"

[[domain]]
name = "three.test"
mxset = "main"
publish = "alias"
`

// writeConfig writes stspub.toml, or in one of an earlier run brings the addresses up to date that are new at each start.
func (d *dev) writeConfig() error {
	_, httpsPort, _ := net.SplitHostPort(d.o.HTTPS)
	_, httpPort, _ := net.SplitHostPort(d.o.HTTP)
	_, smtpPort, _ := net.SplitHostPort(d.mx.Addr)
	values := map[string]string{
		"hostname": hostname, "alias": aliasZone, "mx1": mailHost, "mx2": secondMX, "dir": d.o.Dir,
		"https": d.o.HTTPS, "http": d.o.HTTP, "dns": d.dns.Addr, "directory": d.ca.DirectoryURL,
		"http_port": httpPort, "https_port": httpsPort, "smtp_port": smtpPort,
	}
	path := d.path("stspub.toml")
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		text = []byte(configuration)
		for key, value := range values {
			text = []byte(strings.ReplaceAll(string(text), "{"+key+"}", value))
		}
	case err != nil:
		return fmt.Errorf("read stspub.toml: %w", err)
	default:
		text = []byte(refresh(string(text), map[string]string{
			"server.https": `"` + d.o.HTTPS + `"`, "server.http": `"` + d.o.HTTP + `"`,
			"acme.lab.directory": `"` + d.ca.DirectoryURL + `"`, "account.lab.server": `"` + d.dns.Addr + `"`,
			"dns.resolvers": `["` + d.dns.Addr + `"]`, "dns.stub": `{ "." = ["` + d.dns.Addr + `"] }`,
			"check.http_port": httpPort, "check.https_port": httpsPort, "check.smtp_port": smtpPort,
		}))
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return fmt.Errorf("write stspub.toml: %w", err)
	}
	return nil
}

// refresh replaces the values of keys, each given as TABLE.KEY, and leaves all else as it is: other lines, and the
// comment behind a value. A value that goes on in the next line was not written by this package, and stays.
func refresh(text string, values map[string]string) string {
	lines := strings.Split(text, "\n")
	table := ""
	for i, line := range lines {
		if header, ok := strings.CutPrefix(strings.TrimSpace(line), "["); ok {
			name, _, _ := strings.Cut(header, "]")
			table = strings.TrimSpace(name) + "."
			continue
		}
		key, old, found := strings.Cut(line, "=")
		value, ours := values[table+strings.TrimSpace(key)]
		if !found || !ours {
			continue
		}
		end := valueEnd(old)
		if strings.Count(old[:end], "[") == strings.Count(old[:end], "]") {
			lines[i] = key + "= " + value + old[end:]
		}
	}
	return strings.Join(lines, "\n")
}

// valueEnd is where the blanks and the comment behind a value begin.
func valueEnd(line string) int {
	quote := rune(0)
	for i, c := range line {
		switch {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'':
			quote = c
		case c == '#':
			return len(strings.TrimRight(line[:i], " \t"))
		}
	}
	return len(strings.TrimRight(line, " \t\r"))
}
