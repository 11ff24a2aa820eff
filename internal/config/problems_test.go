package config

import "strings"

func problemEdits() []edit {
	var all []edit
	for _, edits := range [][]edit{
		formEdits(), serverEdits(), storeEdits(), tableEdits(), accountEdits(), cloudEdits(), secretEdits(), mxsetEdits(), listEdits(), domainEdits(),
		manyEdits(), reportEdits(), acmeEdits(),
	} {
		all = append(all, edits...)
	}
	return all
}

// formEdits break the form: syntax, types, unknown keys.
func formEdits() []edit {
	return []edit{
		{
			"string without quotes", `"example.org"`, `example.org`,
			`stspub.toml:13: TOML syntax: expected value but found something else instead; a string stands in quotes: key = "value"`,
		},
		{
			"string without end", `"example.org"`, `"example.org`,
			`stspub.toml:13: TOML syntax: strings cannot contain newlines`,
		},
		{
			"key twice", "", "name = 'example.net'\n",
			`stspub.toml:17: TOML syntax: key 'domain.name' has already been defined; a key or table stands once`,
		},
		{
			"table twice", "", "[server]\n",
			`stspub.toml:17: TOML syntax: key 'server' has already been defined; a key or table stands once`,
		},
		{
			"number out of range", `"2w"`, `99999999999999999999`,
			`stspub.toml:11: TOML syntax: a number is out of range`,
		},
		{
			"no value", `"2w"`, ``,
			`stspub.toml:11: TOML syntax: expected value but found '\n' instead; a string stands in quotes: key = "value"`,
		},
		{
			"UTF-16", "[server]\n", "\xff\xfe[\x00",
			`stspub.toml:1: TOML syntax: the file is UTF-16, save it as UTF-8`,
		},
		{
			"unknown key, nearly known", `mode = "enforce"`, `mod = "enforce"`,
			`stspub.toml:10: mxset.eu.mod: unknown key; did you mean "mode"?`,
		},
		{
			"unknown key", "", "rollout = '2w'\n",
			`stspub.toml:17: domain.rollout: unknown key; known here: account, adopt, mxset, name, publish, tlsrpt`,
		},
		{
			"unknown table", "", "[tlsrpt]\nrua = 'x'\n",
			`stspub.toml:17: tlsrpt: unknown key; known here: account, acme, alias, check, dns, domain, mxset, publish, server, store`,
		},
		{
			"unknown table, nearly known", "", "[mxsets.us]\nmx = ['mx']\n",
			`stspub.toml:17: mxsets: unknown key; did you mean "mxset"?`,
		},
		{
			"integer for a string", `"enforce"`, `1`,
			`stspub.toml:10: mxset.eu.mode: is an integer, want a string: mode = "value"`,
		},
		{
			"string for an array", `["mx1.example.net"]`, `"mx1.example.net"`,
			`stspub.toml:9: mxset.eu.mx: is a string, want an array of strings: mx = ["value"]`,
		},
		{
			"integer in an array", `["mx1.example.net"]`, "[\n'mx1.example.net',\n25,\n]",
			`stspub.toml:11: mxset.eu.mx: holds an integer, want an array of strings: mx = ["value"]`,
		},
		{
			"string for an integer", "", "[check]\nhttps_port = '443'\n",
			`stspub.toml:18: check.https_port: is a string, want an integer: https_port = 443`,
		},
		{
			"string for a boolean", "", "adopt = 'yes'\n",
			`stspub.toml:17: domain.adopt: is a string, want true or false`,
		},
		{
			"float for a duration", `"2w"`, `1.5`,
			`stspub.toml:11: mxset.eu.max_age: is a float, want a duration: max_age = "36h"`,
		},
		{
			"date for a duration", `"2w"`, `1979-05-27`,
			`stspub.toml:11: mxset.eu.max_age: is a date, want a duration: max_age = "36h"`,
		},
		{
			"table for a string", "[server]\nhostname = \"sts.example.com\"", "[server.hostname]\nx = 1",
			`stspub.toml:1: server.hostname: is a table, want a string: hostname = "value"`,
		},
		{
			"table for an array of tables", "[[domain]]", "[domain]",
			`stspub.toml:12: domain: is a table, want an array of tables: [[domain]]`,
		},
		{
			"array of tables for a table", "[mxset.eu]", "[[mxset.eu]]",
			`stspub.toml:8: mxset.eu: is an array of tables, want a table: [mxset.NAME]
stspub.toml:14: domain.mxset: "eu" has no table [mxset.NAME]; write one`,
		},
		{
			"named table without its name", "[acme.le]", "[acme]",
			`stspub.toml:4: acme.directory: is a string, want a table: [acme.NAME]`,
		},
		{
			"value for a table", "[server]\n", "store = 'sqlite:x'\n[server]\n",
			`stspub.toml:1: store: is a string, want a table: [store]`,
		},
		{
			"value for named tables", "[server]\n", "alias = 1\n[server]\n",
			`stspub.toml:1: alias: is an integer, want a table: [alias]`,
		},
		{
			"array for stub", "", "[dns]\nstub = ['192.0.2.1']\n",
			`stspub.toml:18: dns.stub: is an array, want a table of arrays: stub = { "name" = ["value"] }`,
		},
		{
			"string in stub", "", "[dns]\nstub = { 'example.com' = '192.0.2.1' }\n",
			`stspub.toml:18: dns.stub."example.com": is a string, want an array of strings: "example.com" = ["value"]`,
		},
		{
			"array for domains", base, "domain = ['example.com']\n",
			`stspub.toml:1: domain: is an array, want an array of tables: [[domain]]
stspub.toml:1: server.hostname: missing; write hostname = "mta-sts.example.com", the name that customers point their CNAMEs to
stspub.toml:1: acme: missing; write a table [acme.letsencrypt] with email = "postmaster@example.com" and directory = "https://acme-v02.api.letsencrypt.org/directory"`,
		},
	}
}

func serverEdits() []edit {
	return []edit{
		{
			"no hostname", `hostname = "sts.example.com"`, ``,
			`stspub.toml:1: server.hostname: missing; write hostname = "mta-sts.example.com", the name that customers point their CNAMEs to`,
		},
		{
			"hostname in U-labels", `"sts.example.com"`, `"bücher.example"`,
			`stspub.toml:2: server.hostname: "bücher.example" has U-labels; write "xn--bcher-kva.example"`,
		},
		{
			"hostname with a space", `"sts.example.com"`, `"sts example.com"`,
			`stspub.toml:2: server.hostname: "sts example.com": has a space in it`,
		},
		{
			"no address", `hostname = "sts.example.com"`, "hostname = \"sts.example.com\"\naddresses = ['192.0.2.1', 'sts.example.com']",
			`stspub.toml:3: server.addresses: "sts.example.com" is no IP address; write one like "192.0.2.1" or "2001:db8::1"`,
		},
		{
			"listen at a name", `hostname = "sts.example.com"`, "hostname = 'sts.example.com'\nhttps = 'localhost:443'",
			`stspub.toml:3: server.https: "localhost:443" is no address to listen at; write ":443" or "192.0.2.1:443"`,
		},
		{
			"listen without a port", `hostname = "sts.example.com"`, "hostname = 'sts.example.com'\nhttp = '192.0.2.1'",
			`stspub.toml:3: server.http: "192.0.2.1" is no address to listen at; write ":443" or "192.0.2.1:443"`,
		},
		{
			"listen at a port too high", `hostname = "sts.example.com"`, "hostname = 'sts.example.com'\nhealth = ':65536'",
			`stspub.toml:3: server.health: ":65536" is no address to listen at; write ":443" or "192.0.2.1:443"`,
		},
		{
			"HTTPS off", `hostname = "sts.example.com"`, "hostname = 'sts.example.com'\nhttps = 'off'",
			`stspub.toml:3: server.https: "off" is no address to listen at; write ":443" or "192.0.2.1:443"`,
		},
		{
			"node with a space", `hostname = "sts.example.com"`, "hostname = 'sts.example.com'\nnode = 'node 1'",
			`stspub.toml:3: server.node: "node 1" is no name of a node; write one like "node1", of ASCII without spaces and slashes`,
		},
		{
			"node everywhere", `hostname = "sts.example.com"`, "hostname = 'sts.example.com'\nnode_address = '0.0.0.0:443'",
			`stspub.toml:3: server.node_address: "0.0.0.0:443" is no address that other nodes can connect to; write one like "192.0.2.1:443"`,
		},
		{
			"node without a port", `hostname = "sts.example.com"`, "hostname = 'sts.example.com'\nnode_address = '192.0.2.1'",
			`stspub.toml:3: server.node_address: "192.0.2.1" is no address that other nodes can connect to; write one like "192.0.2.1:443"`,
		},
		{
			"linger too long", `hostname = "sts.example.com"`, "hostname = 'sts.example.com'\nlinger = '6m'",
			`stspub.toml:3: server.linger: "6m" is out of range; "0s" to "5m"`,
		},
		{
			"two listeners at a port", `hostname = "sts.example.com"`, "hostname = 'sts.example.com'\nhealth = '127.0.0.1:80'",
			`stspub.toml:3: server.health: "127.0.0.1:80" is taken by server.http; write another port`,
		},
		{
			"admin for everybody", `hostname = "sts.example.com"`, "hostname = 'sts.example.com'\nadmin = ':8420'",
			`stspub.toml:3: server.admin: ":8420" is neither a socket nor a loopback address; write "unix:/run/stspub/admin.sock" or "127.0.0.1:8420"; for other machines there is admin_tls`,
		},
		{
			"admin by TLS without a certificate", `hostname = "sts.example.com"`, "hostname = 'sts.example.com'\nadmin_tls = ':8420'\nadmin_key_file = 'key'",
			"stspub.toml:3: server.admin_cert_file: missing; admin_tls needs a certificate and its key, in PEM",
		},
		{
			"a certificate for no listener", `hostname = "sts.example.com"`, "hostname = 'sts.example.com'\nadmin_cert_file = 'pem'",
			`stspub.toml:3: server.admin_cert_file: does nothing without admin_tls = ":8420"; write that, or leave this out`,
		},
		{
			"a certificate that is none", `hostname = "sts.example.com"`,
			"hostname = 'sts.example.com'\nadmin_tls = ':8420'\nadmin_cert_file = 'token'\nadmin_key_file = 'token'",
			`stspub.toml:4: server.admin_cert_file: "token" and "token" are no certificate with its key, in PEM: ` +
				"failed to find any PEM data in certificate input",
		},
		{
			"admin by TLS at a port that is taken", `hostname = "sts.example.com"`,
			"hostname = 'sts.example.com'\nadmin_tls = ':443'\nadmin_cert_file = 'missing'\nadmin_key_file = 'token'",
			`stspub.toml:3: server.admin_tls: ":443" is taken by server.https; write another port` + "\n" +
				`stspub.toml:4: server.admin_cert_file: read "missing": no such file or directory`,
		},
		{
			"admin without a path", `hostname = "sts.example.com"`, "hostname = 'sts.example.com'\nadmin = 'unix:'",
			`stspub.toml:3: server.admin: "unix:" has no path; write "unix:/run/stspub/admin.sock"`,
		},
		{
			"admin with a long path", `hostname = "sts.example.com"`, "hostname = 'sts.example.com'\nadmin = 'unix:/" + longZone[:120] + "'",
			`stspub.toml:3: server.admin: "/` + longZone[:120] + `" is too long for a socket; at most 107 bytes`,
		},
	}
}

// storeEdits break [store].
func storeEdits() []edit {
	return []edit{
		{
			"PostgreSQL with a password", "", "[store]\nurl = 'postgres://stspub:geheim@db/stspub'\n",
			`stspub.toml:18: store.url: holds a password; write that into a file of its own, and name the file in password_file`,
		},
		{
			"PostgreSQL with a password apart", "", "[store]\nurl = 'postgres://stspub@db/stspub?password=geheim'\n",
			`stspub.toml:18: store.url: holds a password; write that into a file of its own, and name the file in password_file`,
		},
		{
			"PostgreSQL without a user", "", "[store]\nurl = 'postgres://db/geheim'\n",
			`stspub.toml:18: store.url: names no user; write "postgres://USER@HOST:PORT/DATABASE?sslmode=verify-full"`,
		},
		{
			"PostgreSQL nowhere", "", "[store]\nurl = 'postgres://geheim@/stspub'\n",
			`stspub.toml:18: store.url: names no host; write "postgres://USER@HOST:PORT/DATABASE?sslmode=verify-full", or ?host=/run/postgresql for a socket`,
		},
		{
			"PostgreSQL without a database", "", "[store]\nurl = 'postgres://geheim@db/'\n",
			`stspub.toml:18: store.url: names no database; write "postgres://USER@HOST:PORT/DATABASE?sslmode=verify-full"`,
		},
		{
			"PostgreSQL by no URL", "", "[store]\nurl = 'postgres://u:geheim@[::1/x'\n",
			`stspub.toml:18: store.url: is no URL; write "postgres://USER@HOST:PORT/DATABASE?sslmode=verify-full", with %XX for what is special in a name`,
		},
		{
			"unknown engine", "", "[store]\nurl = '/var/lib/geheim.db'\n",
			`stspub.toml:18: store.url: names no known engine; write url = "sqlite:/var/lib/stspub/stspub.db"`,
		},
		{
			"store in memory", "", "[store]\nurl = 'sqlite::memory:'\n",
			`stspub.toml:18: store.url: names no file; write url = "sqlite:/var/lib/stspub/stspub.db"`,
		},
		{
			"store without a path", "", "[store]\nurl = 'sqlite:'\n",
			`stspub.toml:18: store.url: names no file; write url = "sqlite:/var/lib/stspub/stspub.db"`,
		},
		{
			"store key that is none", "", "[store]\nkey_file = 'token'\n",
			`stspub.toml:18: store.key_file: the secret is no key of 32 random bytes in base64 or hex; make one: openssl rand -base64 32`,
		},
		{
			"events kept for hours", "", "[store]\nkeep_events = '23h'\n",
			`stspub.toml:18: store.keep_events: "23h" is out of range; "1d" to "3650d"`,
		},
		{
			"old store key without a new one", "", "[store]\nold_key_files = ['token']\n",
			`stspub.toml:18: store.old_key_files: stands without key_file; write the file of the new key there, since a store that ` +
				"is sealed stays so\n" +
				`stspub.toml:18: store.old_key_files: the secret is no key of 32 random bytes in base64 or hex; make one: openssl rand -base64 32`,
		},
	}
}

// tableEdits break the smaller tables.
func tableEdits() []edit {
	return []edit{
		{
			"resolver by name", "", "[dns]\nresolvers = [\n'192.0.2.1',\n'dns.example.com']\n",
			`stspub.toml:20: dns.resolvers: "dns.example.com" is no address of a DNS server; write one like "192.0.2.53" or "[2001:db8::53]:5353"`,
		},
		{
			"no resolver", "", "[dns]\nresolvers = []\n",
			`stspub.toml:18: dns.resolvers: is empty; write at least one address like "192.0.2.53", or leave it out`,
		},
		{
			"stub for no zone", "", "[dns]\nstub = { 'a b' = ['192.0.2.1'] }\n",
			`stspub.toml:18: dns.stub: "a b" is no zone; write one in A-labels like "example.com", or "." for all`,
		},
		{
			"stub twice", "", "[dns.stub]\n'example.com' = ['192.0.2.1']\n'Example.com.' = ['192.0.2.1']\n",
			`stspub.toml:18: dns.stub: zone "example.com" is there twice; write all its servers into one list`,
		},
		{
			"stub without a server", "", "[dns.stub]\n'.' = []\n",
			`stspub.toml:18: dns.stub: is empty; write at least one address like "192.0.2.53", or leave it out`,
		},
		{
			"no CA file", "", "[check]\nca_file = 'nothing'\n",
			`stspub.toml:18: check.ca_file: read "nothing": no such file or directory`,
		},
		{
			"CA file that is a folder", "", "[check]\nca_file = 'folder'\n",
			`stspub.toml:18: check.ca_file: read "folder": is no regular file`,
		},
		{
			"settle without a unit", "", "[publish]\nsettle = '5'\n",
			`stspub.toml:18: publish.settle: "5" is no duration; write it like "90s", "36h", "10d" or "1w2d"`,
		},
		{
			"settle as an integer", "", "[publish]\nsettle = 300\n",
			`stspub.toml:18: publish.settle: is an integer, want a duration with its unit: "300s"`,
		},
		{
			"grace too long", "", "[publish]\nnode_grace = '2d'\n",
			`stspub.toml:18: publish.node_grace: "2d" is out of range; "1s" to "24h"`,
		},
		{
			"settle too long", "", "[publish]\nsettle = '2d'\n",
			`stspub.toml:18: publish.settle: "2d" is out of range; "1s" to "24h"`,
		},
		{
			"TTL too small", "", "[publish]\nttl = '59s'\n",
			`stspub.toml:18: publish.ttl: "59s" is out of range; "60s" to "3600s"`,
		},
		{
			"TTL of a fraction", "", "[publish]\nttl = '90.5s'\n",
			`stspub.toml:18: publish.ttl: "90.5s" has a fraction of a second; write whole seconds`,
		},
		{
			"checks too rare", "", "[check]\nevery = '8d'\n",
			`stspub.toml:18: check.every: "8d" is out of range; "1s" to "168h"`,
		},
		{
			"port 0", "", "[check]\nsmtp_port = 0\n",
			`stspub.toml:18: check.smtp_port: 0 is no port; 1 to 65535`,
		},
		{
			"no proxy", "[acme.le]", "proxies = ['lb.example.com']\n[acme.le]",
			`stspub.toml:3: server.proxies: "lb.example.com" is neither a network nor an address; write one like "192.0.2.1" or "10.0.0.0/8"`,
		},
		{
			"no network", "", "[check]\nallow_private = [\n'10.0.0.0/8',\n'10.0.0.0/33',\n'mx.example.com', 'fe80::1%eth0', '::ffff:10.0.0.0/104']\n",
			`stspub.toml:20: check.allow_private: "10.0.0.0/33" is neither a network nor an address; write one like "10.0.0.0/8" or "fd00::25"` + "\n" +
				`stspub.toml:21: check.allow_private: "mx.example.com" is neither a network nor an address; write one like "10.0.0.0/8" or "fd00::25"` + "\n" +
				`stspub.toml:21: check.allow_private: "fe80::1%eth0" is neither a network nor an address; write one like "10.0.0.0/8" or "fd00::25"` + "\n" +
				`stspub.toml:21: check.allow_private: "::ffff:10.0.0.0/104" is neither a network nor an address; write one like "10.0.0.0/8" or "fd00::25"`,
		},
	}
}

func accountEdits() []edit {
	return []edit{
		{
			"no provider", `provider = "cloudflare"`, ``,
			`stspub.toml:5: account.main.provider: missing; write one of "cloudflare", "cloudns", "desec", "mythicbeasts", "ovh", "powerdns", "rfc2136", "route53"`,
		},
		{
			"unknown provider", `"cloudflare"`, `"godaddy"`,
			`stspub.toml:6: account.main.provider: "godaddy" is no provider; write one of "cloudflare", "cloudns", "desec", "mythicbeasts", "ovh", "powerdns", "rfc2136", "route53"`,
		},
		{
			"key of another provider", `provider = "cloudflare"`, "provider = 'cloudflare'\nserver = '192.0.2.1'",
			`stspub.toml:7: account.main.server: provider "cloudflare" has no such key; leave it out`,
		},
		{
			"API in clear", `provider = "cloudflare"`, "provider = 'cloudflare'\napi_url = 'http://api.example.com'",
			`stspub.toml:7: account.main.api_url: is not HTTPS; write a URL that begins with https://`,
		},
		{
			"name of an account", "", "[account.My_Account]\nprovider = 'rfc2136'\nserver = '127.0.0.1'\n",
			`stspub.toml:17: account.My_Account: "My_Account" is no name for a table; up to 63 lower-case letters, digits and hyphens, none of these first or last`,
		},
		{
			"name with a line end", "", "[account.\"a\\nb\"]\nprovider = 'rfc2136'\nserver = '127.0.0.1'\n",
			`stspub.toml:17: account."a\nb": "a\nb" is no name for a table; up to 63 lower-case letters, digits and hyphens, none of these first or last`,
		},
		{
			"no server", "", "[account.b]\nprovider = 'rfc2136'\nkey_name = 'k'\nkey_file = 'tsig'\n",
			`stspub.toml:17: account.b.server: missing; write the primary that takes updates, server = "192.0.2.53"`,
		},
		{
			"bad server", "", "[account.b]\nprovider = 'rfc2136'\nserver = 'a b'\nkey_name = 'k'\nkey_file = 'tsig'\n",
			`stspub.toml:19: account.b.server: "a b" is no server; write its address, with a port other than 53: "192.0.2.53:5353"`,
		},
		{
			"token for a server", "", "[account.b]\nprovider = 'rfc2136'\nserver = '192.0.2.1'\nkey_name = 'k'\nkey_file = 'tsig'\napi_token_env = 'TOKEN'\n",
			`stspub.toml:22: account.b.api_token_env: provider "rfc2136" has no such key; leave it out`,
		},
		{
			"key without its name", "", "[account.b]\nprovider = 'rfc2136'\nserver = '192.0.2.1'\nkey_file = 'tsig'\n",
			`stspub.toml:17: account.b.key_name: missing; write the name of the TSIG key, key_name = "stspub"`,
		},
		{
			"name without its key", "", "[account.b]\nprovider = 'rfc2136'\nserver = '192.0.2.1'\nkey_name = 'k'\n",
			`stspub.toml:17: account.b.key_file: missing; write the file with the secret of this TSIG key, key_file = "/run/secrets/tsig", or leave out key_name`,
		},
		{
			"bad name of a key", "", "[account.b]\nprovider = 'rfc2136'\nserver = '192.0.2.1'\nkey_name = 'a key'\nkey_env = 'TSIG'\n",
			`stspub.toml:20: account.b.key_name: "a key" is no name of a TSIG key; write one like "stspub"`,
		},
		{
			"unknown algorithm", "", "[account.b]\nprovider = 'rfc2136'\nserver = '192.0.2.1'\nkey_name = 'k'\nkey_env = 'TSIG'\nkey_algorithm = 'hmac-md5'\n",
			`stspub.toml:22: account.b.key_algorithm: "hmac-md5" is no TSIG algorithm; write one of hmac-sha1, hmac-sha224, hmac-sha256, hmac-sha384, hmac-sha512`,
		},
		{
			"key that is no base64", "", "[account.b]\nprovider = 'rfc2136'\nserver = '192.0.2.1'\nkey_name = 'k'\nkey_env = 'NO_BASE'\n",
			`stspub.toml:21: account.b.key_env: the secret is not base64; write the secret of the TSIG key alone, as it stands behind the word secret in the server's configuration`,
		},
		{
			"bare account at PowerDNS", "", "[account.b]\nprovider = 'powerdns'\n",
			`stspub.toml:17: account.b.server: missing; write the URL of the server's API, server = "http://127.0.0.1:8081"
stspub.toml:17: account.b.api_key_file: missing; write api_key_file = "/run/secrets/powerdns" or api_key_env = "POWERDNS_API_KEY"`,
		},
		{
			"bad server of PowerDNS", "", "[account.b]\nprovider = 'powerdns'\nserver = '127.0.0.1:8081'\napi_key_env = 'TOKEN'\n",
			`stspub.toml:19: account.b.server: is no URL; write one like "https://api.example.com/path"`,
		},
		{
			"no web server", "", "[account.b]\nprovider = 'powerdns'\nserver = 'ftp://127.0.0.1'\napi_key_env = 'TOKEN'\n",
			`stspub.toml:19: account.b.server: "ftp://127.0.0.1" is no URL of a web server; write one like "http://127.0.0.1:8081"`,
		},
		{
			"bad server id", "", "[account.b]\nprovider = 'powerdns'\nserver = 'http://127.0.0.1'\napi_key_env = 'TOKEN'\nserver_id = 'a/b'\n",
			`stspub.toml:21: account.b.server_id: "a/b" is no id of a server; leave it out for "localhost"`,
		},
		{
			"TSIG key for PowerDNS", "", "[account.b]\nprovider = 'powerdns'\nserver = 'http://127.0.0.1'\napi_key_env = 'TOKEN'\nkey_name = 'k'\n",
			`stspub.toml:21: account.b.key_name: provider "powerdns" has no such key; leave it out`,
		},
		{
			"alias without zone and account", "", "[alias]\n",
			`stspub.toml:17: alias.zone: missing; write the zone for the records of publish = "alias", zone = "alias.example.com"
stspub.toml:17: alias.account: missing; write the account that holds the zone, account = "main"`,
		},
		{
			"alias zone too long", "", "[alias]\naccount = 'main'\nzone = '" + longZone + "'\n",
			`stspub.toml:19: alias.zone: "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.aaaaaaaaaaaaaaaa.example.com" is too long; records below it would have names of 257 octets, and 253 is the most`,
		},
		{
			"alias zone in U-labels", "", "[alias]\naccount = 'main'\nzone = 'bücher.example'\n",
			`stspub.toml:19: alias.zone: "bücher.example" has U-labels; write "xn--bcher-kva.example"`,
		},
		{
			"unknown account of alias", "", "[alias]\naccount = 'mian'\nzone = 'alias.example.com'\n",
			`stspub.toml:18: alias.account: "mian" has no table [account.NAME]; there are: main`,
		},
	}
}

// longZone has 217 octets, four too many below sharedPrefix, the name of the MX set and the label of a domain.
const longZone = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa." +
	"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa." +
	"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa." +
	"aaaaaaaaaaaaaaaa.example.com"

func secretEdits() []edit {
	const token = `api_token_file = "token"`
	return []edit{
		{
			"no token", token, ``,
			`stspub.toml:5: account.main.api_token_file: missing; write api_token_file = "/run/secrets/cloudflare" or api_token_env = "CLOUDFLARE_API_TOKEN"`,
		},
		{
			"token in the file", token, `api_token = "geheim"`,
			`stspub.toml:7: account.main.api_token: a secret does not belong into this file; write it to a file of its own and name that with api_token_file, or an environment variable with api_token_env`,
		},
		{
			"key in the file", "", "[account.b]\nprovider = 'rfc2136'\nserver = '192.0.2.1'\nkey_name = 'k'\nkey = 'geheim'\n",
			`stspub.toml:21: account.b.key: a secret does not belong into this file; write it to a file of its own and name that with key_file, or an environment variable with key_env`,
		},
		{
			"token of a wrong type", token, `api_token_file = 42`,
			`stspub.toml:7: account.main.api_token_file: is an integer, want a string: api_token_file = "value"`,
		},
		{
			"token from both", token, token + "\napi_token_env = 'TOKEN'",
			`stspub.toml:8: account.main.api_token_env: api_token_file and api_token_env are both given; leave one out`,
		},
		{
			"no such file", token, `api_token_file = "geheim"`,
			`stspub.toml:7: account.main.api_token_file: there is no such file; write the path of the file that holds the secret`,
		},
		{
			"no name of a file", token, `api_token_file = ""`,
			`stspub.toml:7: account.main.api_token_file: there is no such file; write the path of the file that holds the secret`,
		},
		{
			"empty file", token, `api_token_file = "empty"`,
			`stspub.toml:7: account.main.api_token_file: file "empty" is empty; write the secret into it`,
		},
		{
			"file of two lines", token, `api_token_file = "two-lines"`,
			`stspub.toml:7: account.main.api_token_file: file "two-lines" holds more than a secret; write nothing but one line of ASCII without spaces`,
		},
		{
			"file too large", token, `api_token_file = "big"`,
			`stspub.toml:7: account.main.api_token_file: file "big" is too large for a secret; at most 16384 bytes`,
		},
		{
			"folder", token, `api_token_file = "folder"`,
			`stspub.toml:7: account.main.api_token_file: "folder" is no regular file; write the path of the file that holds the secret`,
		},
		{
			"file below a file", token, `api_token_file = "token/geheim"`,
			`stspub.toml:7: account.main.api_token_file: find this file: not a directory`,
		},
		{
			"variable not set", token, `api_token_env = "CLOUDFLARE_API_TOKEN"`,
			`stspub.toml:7: account.main.api_token_env: environment variable CLOUDFLARE_API_TOKEN is not set or empty; set it to the secret`,
		},
		{
			"variable blank", token, `api_token_env = "BLANK"`,
			`stspub.toml:7: account.main.api_token_env: environment variable BLANK is empty; write the secret into it`,
		},
		{
			"token for the name of a variable", token, `api_token_env = "geheim"`,
			`stspub.toml:7: account.main.api_token_env: this environment variable is not set or empty; set it to the secret`,
		},
	}
}

func mxsetEdits() []edit {
	const mx = `mx = ["mx1.example.net"]`
	return []edit{
		{
			"no MX", mx, ``,
			`stspub.toml:8: mxset.eu.mx: missing; write at least one MX, mx = ["mx1.example.net"]`,
		},
		{
			"empty MX", mx, `mx = []`,
			`stspub.toml:9: mxset.eu.mx: is empty; write at least one MX, mx = ["mx1.example.net"]`,
		},
		{
			"bad patterns, each in its line", mx,
			"mx = [\n  '*.*.x',\n  'mx.example.net', # ]\n  'mx_1.x', 'mx.example.net.',\n  \"\"\"192.0.2.1\"\"\",\n  ''\n]",
			`stspub.toml:10: mxset.eu.mx: "*.*.x": a wildcard is only the whole first label, once, as in *.example.com (RFC 8461, Section 4.1)
stspub.toml:12: mxset.eu.mx: "mx_1.x": has an underscore, which no host name may have
stspub.toml:12: mxset.eu.mx: "mx.example.net.": has a trailing dot; leave it out
stspub.toml:13: mxset.eu.mx: "192.0.2.1": is an IP address; write a host name
stspub.toml:14: mxset.eu.mx: is empty; write a domain name such as example.org`,
		},
		{
			"MX twice", mx, "mx = [\n'mx.example.net',\n'MX.example.net']",
			`stspub.toml:11: mxset.eu.mx: "mx.example.net" is there twice, first in line 10; leave one out`,
		},
		{
			"policy too large", mx, "mx = [" + manyMX() + "]",
			`stspub.toml:9: mxset.eu.mx: makes a policy of 15597 bytes, which some senders cut off; stay under 10240, with fewer patterns or a wildcard`,
		},
		{
			"no mode", `mode = "enforce"`, ``,
			`stspub.toml:8: mxset.eu.mode: missing; write mode = "testing" to begin with, or "enforce"`,
		},
		{
			"unknown mode", `"enforce"`, `"Enforce"`,
			`stspub.toml:10: mxset.eu.mode: "Enforce": is no mode; write "enforce", "testing" or "none"`,
		},
		{
			"no max_age", `max_age = "2w"`, ``,
			`stspub.toml:8: mxset.eu.max_age: missing; write max_age = "2w", or "1d" to begin with`,
		},
		{
			"max_age 0", `"2w"`, `0`,
			`stspub.toml:11: mxset.eu.max_age: 0 is out of range; 1 to 31557600 seconds, about a year (RFC 8461, Section 3.2); "2w" is a good start`,
		},
		{
			"negative max_age", `"2w"`, `-1`,
			`stspub.toml:11: mxset.eu.max_age: -1 is out of range; 1 to 31557600 seconds, about a year (RFC 8461, Section 3.2); "2w" is a good start`,
		},
		{
			"max_age above a year", `"2w"`, `31557601`,
			`stspub.toml:11: mxset.eu.max_age: 31557601 is out of range; 1 to 31557600 seconds, about a year (RFC 8461, Section 3.2); "2w" is a good start`,
		},
		{
			"max_age of 53 weeks", `"2w"`, `"53w"`,
			`stspub.toml:11: mxset.eu.max_age: "53w" is out of range; 1 to 31557600 seconds, about a year (RFC 8461, Section 3.2); "2w" is a good start`,
		},
		{
			"max_age of a fraction", `"2w"`, `"90000.5s"`,
			`stspub.toml:11: mxset.eu.max_age: "90000.5s" has a fraction of a second; write whole seconds`,
		},
		{
			"max_age without a unit", `"2w"`, `"1209600"`,
			`stspub.toml:11: mxset.eu.max_age: "1209600" is no duration; write it like "90s", "36h", "10d" or "1w2d"`,
		},
		{
			"max_age of a thousand years", `"2w"`, `"60000w"`,
			`stspub.toml:11: mxset.eu.max_age: "60000w" is no duration; write it like "90s", "36h", "10d" or "1w2d"`,
		},
		{
			"name of an MX set", "", "[mxset.EU]\nmx = ['mx.example.net']\nmode = 'none'\nmax_age = '1d'\n",
			`stspub.toml:17: mxset.EU: "EU" is no name for a table; up to 63 lower-case letters, digits and hyphens, none of these first or last`,
		},
		{
			"long name of an MX set", "",
			"[mxset.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa]\nmx = ['mx.example.net']\nmode = 'none'\nmax_age = '1d'\n",
			`stspub.toml:17: mxset.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa: "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" is no name for a table; up to 63 lower-case letters, digits and hyphens, none of these first or last`,
		},
	}
}

// manyMX returns patterns that make a policy of more than 10 KiB.
func manyMX() string {
	var s string
	for a := 'a'; a <= 'z'; a++ {
		for b := 'a'; b <= 'z'; b++ {
			s += "'" + string(a) + string(b) + ".mx.example.net', "
		}
	}
	return s
}

// listEdits break the lists of an MX set.
func listEdits() []edit {
	const maxAge = `max_age = "2w"`
	zone := "max_age = '2w'\npublish = 'zone'\naccount = 'main'\n"
	return []edit{
		{
			"list without a way", maxAge, "max_age = '2w'\ndomains = ['example.com']",
			`stspub.toml:8: mxset.eu.publish: missing; its listed domains need publish = "zone", "alias", "shared" or "manual"`,
		},
		{
			"list without an account", maxAge, "max_age = '2w'\npublish = 'zone'\ndomains = ['example.com']",
			`stspub.toml:8: mxset.eu.account: missing; publish = "zone" needs the account that holds the zones, account = "main"`,
		},
		{
			"list for alias without [alias]", maxAge, "max_age = '2w'\npublish = 'alias'\ndomains = ['example.com']",
			`stspub.toml:12: mxset.eu.publish: "alias" needs a table [alias] with zone and account`,
		},
		{
			"empty list", maxAge, zone + "domains = []",
			`stspub.toml:14: mxset.eu.domains: is empty; write at least one domain, or leave it out`,
		},
		{
			"bad names in a list", maxAge, zone + "domains = [\n'example.com',\n'a_b.example',\n'com', # no\n'example.org', 'EXAMPLE.com']",
			`stspub.toml:16: mxset.eu.domains: "a_b.example": has an underscore, which no host name may have
stspub.toml:17: mxset.eu.domains: "com": is a single label; write a whole name such as mail.example.org
stspub.toml:18: mxset.eu.domains: "example.com" is declared twice, first in stspub.toml:15; leave one out
stspub.toml:20: domain.name: "example.org" is declared twice, first in stspub.toml:18; leave one out`,
		},
		{
			"no such domains file", maxAge, zone + "domains_file = 'nothing'",
			`stspub.toml:14: mxset.eu.domains_file: read "nothing": no such file or directory; write the path of a file with one domain a line`,
		},
		{
			"empty domains file", maxAge, zone + "domains_file = 'none'",
			`stspub.toml:14: mxset.eu.domains_file: "none" has no domain in it; write one a line, or leave the key out`,
		},
		{
			"domains file of comments", maxAge, zone + "domains_file = 'comments'",
			`stspub.toml:14: mxset.eu.domains_file: "comments" has no domain in it; write one a line, or leave the key out`,
		},
		{
			"domains file cut off", maxAge, zone + "domains_file = 'cut'",
			`stspub.toml:14: mxset.eu.domains_file: "cut" has no line end after line 2, so it may be cut off; end the last line`,
		},
		{
			"domains file that is a folder", maxAge, zone + "domains_file = 'folder'",
			`stspub.toml:14: mxset.eu.domains_file: read "folder": is no regular file; write the path of a file with one domain a line`,
		},
		{
			"bad names in a domains file", maxAge, zone + "domains_file = 'wrong'",
			`wrong:2: "not a name": has a space in it
wrong:4: "example.com" is declared twice, first in wrong:1; leave one out
wrong:5: "co.uk": is a public suffix, below which a registry hands out names; write one of those
stspub.toml:16: domain.name: "example.org" is declared twice, first in wrong:3; leave one out`,
		},
		{
			"name in a list and a file", maxAge, zone + "domains = ['example.net']\ndomains_file = 'customers'",
			`customers:4: "example.net" is declared twice, first in stspub.toml:14; leave one out`,
		},
		{
			"account of an MX set that is not that of [alias]", maxAge,
			"max_age = '2w'\naccount = 'main'\npublish = 'alias'\n[alias]\nzone = 'alias.example.com'\naccount = 'b'\n" +
				"[account.b]\nprovider = 'rfc2136'\nserver = '127.0.0.1'",
			`stspub.toml:12: mxset.eu.account: "main" is not the account of [alias], which holds the records of publish = "alias"; leave it out`,
		},
		{
			"unknown account of an MX set", maxAge, "max_age = '2w'\naccount = 'other'",
			`stspub.toml:12: mxset.eu.account: "other" has no table [account.NAME]; there are: main`,
		},
		{
			"shared without an alias zone", maxAge, "max_age = '2w'\npublish = 'shared'",
			`stspub.toml:12: mxset.eu.publish: "shared" needs a table [alias] with zone and account`,
		},
	}
}

func domainEdits() []edit {
	const alias = "[alias]\nzone = 'alias.example.com'\naccount = 'main'\n[account.b]\nprovider = 'rfc2136'\nserver = '127.0.0.1'\n"
	return []edit{
		{
			"no name", `name = "example.org"`, ``,
			`stspub.toml:12: domain.name: missing; write name = "example.org"`,
		},
		{
			"bad name", `"example.org"`, `"*.example.org"`,
			`stspub.toml:13: domain.name: "*.example.org": a policy domain is no wildcard; each domain needs its own policy (RFC 8461, Section 3.4)`,
		},
		{
			"name twice", "", "[[domain]]\nname = 'Example.ORG.'\nmxset = 'eu'\npublish = 'zone'\naccount = 'main'\n",
			`stspub.toml:18: domain.name: "example.org" is declared twice, first in stspub.toml:13; leave one out`,
		},
		{
			"name twice, as U-label and A-label", `"example.org"`, "\"bücher.example\"\nadopt = true\nmxset = 'eu'\npublish = 'zone'\n" +
				"account = 'main'\n[[domain]]\nname = 'xn--bcher-kva.example'",
			`stspub.toml:19: domain.name: "xn--bcher-kva.example" is declared twice, first in stspub.toml:13; leave one out`,
		},
		{
			"no MX set", `mxset = "eu"`, ``,
			`stspub.toml:12: domain.mxset: missing; write the name of an MX set, mxset = "eu"`,
		},
		{
			"unknown MX set", `mxset = "eu"`, `mxset = "eur"`,
			`stspub.toml:14: domain.mxset: "eur" has no table [mxset.NAME]; did you mean "eu"?`,
		},
		{
			"no way", `publish = "zone"`, ``,
			`stspub.toml:12: domain.publish: missing; write publish = "zone", "alias", "shared" or "manual", here or in the MX set`,
		},
		{
			"unknown way", `publish = "zone"`, `publish = "cname"`,
			`stspub.toml:15: domain.publish: "cname" is no way to publish; write "zone", "alias", "shared" or "manual"`,
		},
		{
			"shared without an alias zone", "publish = \"zone\"\naccount = \"main\"", "publish = 'shared'",
			`stspub.toml:15: domain.publish: "shared" needs a table [alias] with zone and account`,
		},
		{
			"manual with an account", `publish = "zone"`, `publish = "manual"`,
			`stspub.toml:16: domain.account: publish = "manual" writes nothing, so it has no account; leave it out`,
		},
		{
			"no account", `account = "main"`, ``,
			`stspub.toml:12: domain.account: missing; publish = "zone" needs the account that holds the zone, account = "main"`,
		},
		{
			"unknown account", `account = "main"`, `account = "other"`,
			`stspub.toml:16: domain.account: "other" has no table [account.NAME]; there are: main`,
		},
		{
			"alias without [alias]", "publish = \"zone\"\naccount = \"main\"\n", "publish = 'alias'\n",
			`stspub.toml:15: domain.publish: "alias" needs a table [alias] with zone and account`,
		},
		{
			"alias with another account", "publish = \"zone\"\naccount = \"main\"\n", "publish = 'alias'\naccount = 'b'\n" + alias,
			`stspub.toml:16: domain.account: "b" is not the account of [alias], which holds the records of publish = "alias"; leave it out`,
		},
	}
}

// manyEdits break several things at once.
func manyEdits() []edit {
	return []edit{
		{
			"everything", base, "[servr]\nhostname = 1\n[mxset.eu]\nmode = 2\nmx = [\n'mx.example.net',\n'-'\n]\n[[domain]]\nname = 'example.org'\n" +
				"[store]\nurl = 3\n[[domain]]\nname = 4\nmxset = 'us'\npublish = 'zone'\naccount = 'main'\n[publish]\nttl = '1s'\n",
			`stspub.toml:1: servr: unknown key; did you mean "server"?
stspub.toml:1: server.hostname: missing; write hostname = "mta-sts.example.com", the name that customers point their CNAMEs to
stspub.toml:1: acme: missing; write a table [acme.letsencrypt] with email = "postmaster@example.com" and directory = "https://acme-v02.api.letsencrypt.org/directory"
stspub.toml:3: mxset.eu.max_age: missing; write max_age = "2w", or "1d" to begin with
stspub.toml:4: mxset.eu.mode: is an integer, want a string: mode = "value"
stspub.toml:7: mxset.eu.mx: "-": has the label "-"; a label neither begins nor ends with a hyphen
stspub.toml:9: domain.mxset: missing; write the name of an MX set, mxset = "eu"
stspub.toml:9: domain.publish: missing; write publish = "zone", "alias", "shared" or "manual", here or in the MX set
stspub.toml:12: store.url: is an integer, want a string: url = "value"
stspub.toml:14: domain.name: is an integer, want a string: name = "value"
stspub.toml:15: domain.mxset: "us" has no table [mxset.NAME]; there are: eu
stspub.toml:17: domain.account: "main" has no table [account.NAME]; write one
stspub.toml:19: publish.ttl: "1s" is out of range; "60s" to "3600s"`,
		},
		{
			"nothing", base, "",
			`stspub.toml:1: server.hostname: missing; write hostname = "mta-sts.example.com", the name that customers point their CNAMEs to
stspub.toml:1: acme: missing; write a table [acme.letsencrypt] with email = "postmaster@example.com" and directory = "https://acme-v02.api.letsencrypt.org/directory"`,
		},
		{
			"more bad names than are told", `max_age = "2w"`,
			"max_age = '2w'\npublish = 'zone'\naccount = 'main'\ndomains = [\n'_', '_', '_', '_', '_', '_', '_', '_', '_', '_', '_',\n" +
				"'_', '_', '_', '_', '_', '_', '_', '_', '_', '_', '_', '_', '_',\n]", strings.Repeat("stspub.toml:15: mxset.eu.domains: \"_\": has an underscore, which no host name may have\n", 11) +
				strings.Repeat("stspub.toml:16: mxset.eu.domains: \"_\": has an underscore, which no host name may have\n", 8) +
				`stspub.toml:16: mxset.eu.domains: "_": has an underscore, which no host name may have (what else is wrong in this list is not told)`,
		},
	}
}
