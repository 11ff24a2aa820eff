package config

import (
	"encoding/base64"
	"errors"
	"maps"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
)

// What [account.NAME] is when it says nothing.
const (
	defaultAPIURL       = "https://api.cloudflare.com/client/v4"
	defaultKeyAlgorithm = "hmac-sha256"
	defaultServerID     = "localhost"
)

const providerNames = `"cloudflare", "cloudns", "desec", "mythicbeasts", "ovh", "powerdns", "rfc2136", "route53"`

// accounts reads [account.NAME].
func (l *loader) accounts() {
	l.cfg.Accounts = make(map[string]Account, len(l.doc.Accounts))
	for _, name := range slices.Sorted(maps.Keys(l.doc.Accounts)) {
		t, table := l.doc.Accounts[name], tableKey("account", name)
		l.label(table, name, t.Line)
		a := Account{Name: name, Provider: t.Provider.v}
		switch {
		case !t.Provider.given():
			l.problem(t.Line, table+".provider", "missing; write one of %s", providerNames)
		case t.Provider.v == "cloudflare":
			l.cloudflare(table, t, &a)
		case t.Provider.v == "powerdns":
			l.powerDNS(table, t, &a)
		case t.Provider.v == "rfc2136":
			l.rfc2136(table, t, &a)
		case t.Provider.v == "route53":
			l.route53(table, t, &a)
		case t.Provider.v == "desec":
			l.desec(table, t, &a)
		case t.Provider.v == "cloudns":
			l.cloudns(table, t, &a)
		case t.Provider.v == "ovh":
			l.ovh(table, t, &a)
		case t.Provider.v == "mythicbeasts":
			l.mythicbeasts(table, t, &a)
		default:
			l.problem(t.Provider.line, table+".provider", "%q is no provider; write one of %s", t.Provider.v, providerNames)
		}
		l.cfg.Accounts[name] = a
	}
}

func (l *loader) cloudflare(table string, t accountTable, a *Account) {
	l.foreign(table, t, "api_token_file", "api_token_env", "api_url")
	a.APIToken, a.Fault = l.secret(table, "api_token", t.APITokenFile, t.APITokenEnv, nil)
	if !t.APITokenFile.given() && !t.APITokenEnv.given() {
		l.problem(t.Line, table+".api_token_file", `missing; write api_token_file = "/run/secrets/cloudflare" or `+
			`api_token_env = "CLOUDFLARE_API_TOKEN"`)
	}
	a.APIURL = defaultAPIURL
	if t.APIURL.given() {
		a.APIURL = strings.TrimSuffix(l.url(table+".api_url", t.APIURL, true), "/")
	}
}

func (l *loader) rfc2136(table string, t accountTable, a *Account) {
	l.foreign(table, t, "server", "key_name", "key_algorithm", "key_file", "key_env")
	if t.Server.given() {
		a.Server = l.primary(table+".server", t.Server)
	} else {
		l.problem(t.Line, table+".server", `missing; write the primary that takes updates, server = "192.0.2.53"`)
	}
	a.Key, a.Fault = l.secret(table, "key", t.KeyFile, t.KeyEnv, checkTSIG)
	a.KeyName = l.keyName(table, a.Server, t)
	a.KeyAlgorithm = l.keyAlgorithm(table+".key_algorithm", t.KeyAlgorithm)
}

func (l *loader) powerDNS(table string, t accountTable, a *Account) {
	l.foreign(table, t, "server", "server_id", "api_key_file", "api_key_env")
	if t.Server.given() {
		a.Server = l.webServer(table+".server", t.Server)
	} else {
		l.problem(t.Line, table+".server", `missing; write the URL of the server's API, server = "http://127.0.0.1:8081"`)
	}
	a.APIKey, a.Fault = l.secret(table, "api_key", t.APIKeyFile, t.APIKeyEnv, nil)
	if !t.APIKeyFile.given() && !t.APIKeyEnv.given() {
		l.problem(t.Line, table+".api_key_file", `missing; write api_key_file = "/run/secrets/powerdns" or api_key_env = "POWERDNS_API_KEY"`)
	}
	a.ServerID = defaultServerID
	if t.ServerID.given() {
		a.ServerID = t.ServerID.v
		if t.ServerID.v == "" || strings.Trim(strings.ToLower(t.ServerID.v), "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			l.problem(t.ServerID.line, table+".server_id", `%q is no id of a server; leave it out for "localhost"`, t.ServerID.v)
		}
	}
}

// webServer returns the URL of a web server of the operator's own, which in a network of its own may do without TLS.
func (l *loader) webServer(key string, t text) string {
	u := l.absolute(key, t)
	switch {
	case u == nil:
		return ""
	case u.Scheme != "https" && u.Scheme != "http":
		l.problem(t.line, key, `%q is no URL of a web server; write one like "http://127.0.0.1:8081"`, t.v)
		return ""
	case u.Scheme == "http" && !isLoopback(u):
		l.warn(t.line, key, "the API key goes over the network in clear; write a URL that begins with https://, or let nobody else "+
			"into that network")
	}
	return strings.TrimSuffix(t.v, "/")
}

// checkTSIG says why a secret cannot be that of a TSIG key.
func checkTSIG(key Secret) error {
	if _, err := base64.StdEncoding.DecodeString(string(key)); err != nil { // its words would quote from the key
		return errors.New("the secret is not base64; write the secret of the TSIG key alone, as it stands behind the word " +
			"secret in the server's configuration")
	}
	return nil
}

// foreign refuses keys that the provider does not have as its own.
func (l *loader) foreign(table string, t accountTable, own ...string) {
	v := reflect.ValueOf(t)
	for i := range v.NumField() {
		key := v.Type().Field(i).Tag.Get("toml")
		value, ok := v.Field(i).Interface().(text)
		if ok && value.given() && key != "provider" && !slices.Contains(own, key) {
			l.problem(value.line, table+"."+key, "provider %q has no such key; leave it out", t.Provider.v)
		}
	}
}

// primary returns the server that takes updates: an address or a host name, with its port.
func (l *loader) primary(key string, t text) string {
	host, port, err := net.SplitHostPort(t.v)
	if err != nil {
		host, port = strings.TrimSuffix(strings.TrimPrefix(t.v, "["), "]"), "53"
	}
	number, portErr := strconv.ParseUint(port, 10, 16)
	if _, err := netip.ParseAddr(host); err != nil && !isZone(strings.ToLower(host)) || portErr != nil || number == 0 {
		l.problem(t.line, key, `%q is no server; write its address, with a port other than 53: "192.0.2.53:5353"`, t.v)
		return ""
	}
	return net.JoinHostPort(host, port)
}

// keyName returns the name of the TSIG key. It and the key come together or not at all.
func (l *loader) keyName(table, server string, t accountTable) string {
	hasKey := t.KeyFile.given() || t.KeyEnv.given()
	switch {
	case !t.KeyName.given() && hasKey:
		l.problem(t.Line, table+".key_name", `missing; write the name of the TSIG key, key_name = "stspub"`)
		return ""
	case t.KeyName.given() && !hasKey:
		l.problem(t.Line, table+".key_file", `missing; write the file with the secret of this TSIG key, `+
			`key_file = "/run/secrets/tsig", or leave out key_name`)
	case !hasKey:
		if addr, err := netip.ParseAddrPort(server); err == nil && addr.Addr().IsLoopback() {
			return ""
		}
		l.warn(t.Line, table, "updates are not signed: whoever can send from this address can change the zone; "+
			"write key_name and key_file")
		return ""
	}
	name := strings.ToLower(strings.TrimSuffix(t.KeyName.v, "."))
	if !isZone(name) {
		l.problem(t.KeyName.line, table+".key_name", `%q is no name of a TSIG key; write one like "stspub"`, t.KeyName.v)
	}
	return name
}

func (l *loader) keyAlgorithm(key string, t text) string {
	if !t.given() {
		return defaultKeyAlgorithm
	}
	known := []string{"hmac-sha1", "hmac-sha224", "hmac-sha256", "hmac-sha384", "hmac-sha512"}
	name := strings.ToLower(strings.TrimSuffix(t.v, "."))
	if !slices.Contains(known, name) {
		l.problem(t.line, key, "%q is no TSIG algorithm; write one of %s", t.v, strings.Join(known, ", "))
	}
	return name
}

// aliasPrefix stands before the alias zone in the owner names of tenant "default", after a label of labelOctets.
const aliasPrefix = ".d.default."

// sharedPrefix likewise, after a label of labelOctets and the name of an MX set.
const sharedPrefix = ".s.default."

// alias reads [alias].
func (l *loader) alias() {
	t := l.doc.Alias
	if t.Line == 0 {
		return
	}
	if !t.Zone.given() {
		l.problem(t.Line, "alias.zone", `missing; write the zone for the records of publish = "alias", zone = "alias.example.com"`)
	} else {
		zone := l.aLabel("alias.zone", t.Zone)
		owner := len(zone.Label()) + len(aliasPrefix) + len(zone)
		for name := range l.doc.MXSets { // as for publish = "shared"
			owner = max(owner, len(zone.Label())+1+len(name)+len(sharedPrefix)+len(zone))
		}
		if owner > maxNameOctets {
			l.problem(t.Zone.line, "alias.zone", "%q is too long; records below it would have names of %d octets, and %d is the most",
				t.Zone.v, owner, maxNameOctets)
		}
		l.cfg.Alias.Zone = string(zone)
	}
	if !t.Account.given() {
		l.problem(t.Line, "alias.account", `missing; write the account that holds the zone, account = "%s"`, l.anyAccount())
	} else {
		l.cfg.Alias.Account = l.account("alias.account", t.Account)
	}
}

// maxNameOctets is the length of the longest domain name as it is written. RFC 1035, Section 2.3.4.
const maxNameOctets = 253

// account returns the name of an account that is there, or "" after a problem.
func (l *loader) account(key string, t text) string {
	if _, found := l.doc.Accounts[t.v]; found {
		return t.v
	}
	l.problem(t.line, key, "%s", l.missing("account", t.v, slices.Sorted(maps.Keys(l.doc.Accounts))))
	return ""
}

// anyAccount returns the name of an account to show in an example.
func (l *loader) anyAccount() string {
	for _, name := range slices.Sorted(maps.Keys(l.doc.Accounts)) {
		return name
	}
	return "main"
}

// missing says that there is no table of a name, and what may have been meant.
func (l *loader) missing(kind, name string, known []string) string {
	s := strconv.Quote(name) + " has no table [" + kind + ".NAME]; "
	if near := nearest(name, known); near != "" {
		return s + "did you mean " + strconv.Quote(near) + "?"
	}
	if len(known) > 0 {
		return s + "there are: " + strings.Join(known, ", ")
	}
	return s + "write one"
}

// tableKey returns the path of a named table, quoted where it must be.
func tableKey(kind, name string) string { return toml.Key{kind, name}.String() }

// label refuses names of tables that cannot stand in a DNS name. MX sets and accounts come there, or into paths.
func (l *loader) label(key, name string, line int) {
	if !IsLabel(name) {
		l.problem(line, key, "%q is no name for a table; up to 63 lower-case letters, digits and hyphens, none of these first or last", name)
	}
}

// IsLabel reports whether a name can be that of a tenant, MX set or account: one label of lower-case letters, digits and
// hyphens.
func IsLabel(name string) bool {
	return len(name) <= 63 && isZone(name) && !strings.ContainsAny(name, "._")
}

// isZone reports whether a name, without trailing dot, is one of a zone: lower-case labels of letters, digits, hyphens
// and underscores.
func isZone(name string) bool {
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		if strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	return len(name) <= maxNameOctets
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r > '~' })
}
