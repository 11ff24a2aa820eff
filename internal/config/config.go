// Package config turns a TOML file into a [Config] that is whole and right, or into every mistake with its place.
//
// What a Config holds needs no further checking: names are A-labels, durations in range, secrets read, lists of domains
// loaded. The package opens no socket and starts nothing.
package config

import (
	"net/netip"
	"time"

	"github.com/stspub/stspub/internal/policygen"
)

// Config is a checked configuration. config.example.toml is the reference of its keys.
type Config struct {
	Server   Server
	Store    Store
	DNS      DNS
	ACME     ACME
	Accounts map[string]Account
	Alias    Alias
	Publish  Publish
	Check    Check
	MXSets   map[string]MXSet
	Domains  []Domain // by name

	// Digest names the content of the file and of the domains files it reads; nodes compare it.
	Digest string
}

// Server is the [server] table: the listeners.
type Server struct {
	Hostname  string       // where customers point their CNAMEs; the target of tenant "default" is "default.<hostname>"
	Addresses []netip.Addr // further addresses that are ours beside those that Hostname resolves to
	HTTPS     string       // listen address, default ":443"
	HTTP      string       // listen address, default ":80"; "" with http = "off"
	Admin     string       // "unix:PATH" (default "unix:/run/stspub/admin.sock") or a loopback "ADDR:PORT"
	Health    string       // listen address of a plain listener with /healthz and /readyz; default none
}

// Store is the [store] table.
type Store struct {
	Path string // from url = "sqlite:PATH"; default "/var/lib/stspub/stspub.db"
}

// DNS is the [dns] table: whom stspub asks.
type DNS struct {
	Resolvers []string            // "ADDR:PORT"; default: those of /etc/resolv.conf
	Stub      map[string][]string // zone ("." for all) → "ADDR:PORT" of the servers to ask in place of its delegated ones
}

// ACME is an [acme.NAME] table. There is one for now.
type ACME struct {
	Name      string
	Email     string
	Directory string
	CAFile    string // trust for the directory's HTTPS, PEM; default: the system's
}

// Account is an [account.NAME] table: credentials at one DNS provider.
type Account struct {
	Name     string
	Provider string // "cloudflare" or "rfc2136"

	APIToken Secret // cloudflare: api_token_file or api_token_env
	APIURL   string // cloudflare: default "https://api.cloudflare.com/client/v4"

	Server       string // rfc2136: "ADDR:PORT" of the primary; port 53 when left out
	KeyName      string // rfc2136: TSIG key name; empty: unsigned
	KeyAlgorithm string // rfc2136: default "hmac-sha256"
	Key          Secret // rfc2136: base64; key_file or key_env
}

// Alias is the [alias] table; Zone is empty when there is none.
type Alias struct {
	Zone    string // A-label without trailing dot
	Account string
}

// Publish is the [publish] table.
type Publish struct {
	Settle time.Duration // default 5m, 1s..24h
	TTL    time.Duration // of TXT records; default 300s, 60s..3600s
}

// Check is the [check] table: how stspub looks at itself from outside.
type Check struct {
	Every     time.Duration // how often a live domain is checked; default 1h, 1s..168h
	HTTPSPort int           // where senders reach policy hosts; 443 but in laboratories
	SMTPPort  int           // where MX are reached; 25 but in laboratories
	CAFile    string        // trust beside the system's, PEM; for laboratories
}

// MXSet is an [mxset.NAME] table.
type MXSet struct {
	Name   string
	Policy policygen.Policy
}

// Domain is a [[domain]] table, or a name from the domains or domains_file of an MX set.
type Domain struct {
	Name    policygen.Name
	MXSet   string
	Publish string // "zone" or "alias"
	Account string // the account that holds the record: for alias that of [alias]
	Adopt   bool
}

// Secret is a value that does not print. Convert it to a string to use it.
type Secret string

// String hides the secret.
func (Secret) String() string { return "[secret]" }

// GoString hides the secret.
func (Secret) GoString() string { return "[secret]" }

// MarshalText hides the secret.
func (Secret) MarshalText() ([]byte, error) { return []byte("[secret]"), nil }
