// Package config turns a TOML file into a [Config] that is whole and right, or into every mistake with its place.
//
// What a Config holds needs no further checking: names are A-labels, durations in range, paths absolute, secrets read,
// lists of domains loaded. The package opens no socket and starts nothing, so a file can be checked anywhere that its
// secrets are.
//
// An operator who mends a file wants to do it once. So nothing here stops at the first mistake: [Load] tells all of them,
// each as "file:line: table.key: what is wrong, what would be right". It goes in three steps:
//
//  1. The TOML library reads the text. It stops at an error of syntax, which is then all that is told.
//  2. A decoder fills the tables of tables.go with the values, and with the lines that a scanner of our own finds, as the
//     library does not tell them. Unknown keys and wrong types are noted.
//  3. The loader makes a Config of the tables: a method for each, in the order in which they refer to each other.
//
// A key is added to its table in tables.go, to the loader's method of that table, and to config.example.toml, where a test
// misses it otherwise. A secret is never shown: not in a message, and not when a [Secret] is printed by mistake.
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
	ACME     []ACME // in order of preference, at least one
	Accounts map[string]Account
	Alias    Alias
	Publish  Publish
	Check    Check
	MXSets   map[string]MXSet
	Domains  []Domain // by name
	Unread   bool     // Domains were left out; see [LoadUnlessKnown]

	// Digest names the content of the file and of the domains files it reads; nodes compare it.
	Digest string
	// Files is the content of these files, by path: what [LoadFiles] needs to make the same Config without them.
	Files map[string][]byte
}

// Lean returns a copy without Domains and Files: a million names need not stay in memory.
func (c *Config) Lean() *Config {
	lean := *c
	lean.Files, lean.Domains = nil, nil
	return &lean
}

// Server is the [server] table: the listeners.
type Server struct {
	Hostname  string       // A-label without trailing dot: where customers point their CNAMEs; the target of tenant "default" is "default.<hostname>"
	Addresses []netip.Addr // further addresses that are ours beside those that Hostname resolves to
	// Proxies are load balancers before HTTPS and HTTP that say by the PROXY protocol who connects. Default: none.
	Proxies []netip.Prefix
	HTTPS   string // listen address, default ":443"
	HTTP    string // listen address, default ":80"; "" with http = "off"
	Admin   string // "unix:PATH" (default "unix:/run/stspub/admin.sock") or a loopback "ADDR:PORT"
	// AdminTLS is the listen address of the same API for control panels elsewhere: by TLS with the certificate and key of
	// the two PEM files, and with tokens only; default none.
	AdminTLS                    string
	AdminCertFile, AdminKeyFile string
	Health                      string // listen address of a plain listener with /healthz, /readyz and /servez; default none
	// Linger is how long a server that is told to stop goes on serving and says at /readyz that it is not ready; default 0, at
	// most 5m.
	Linger      time.Duration
	Node        string // the name of this server among several on one store; empty: the host name
	NodeAddress string // "ADDR:PORT" at which the others reach HTTPS; empty: where that listens
	// State is the path of a folder of this server alone, for a copy of the certificates where the store is PostgreSQL; empty:
	// there is none, and each start reads all of them from the database.
	State string
}

// Store is the [store] table.
type Store struct {
	Path string // from url = "sqlite:PATH"; default "/var/lib/stspub/stspub.db"
	// Postgres is from url = "postgres://…", with the password in it, so it must not be shown. Empty: the store is SQLite
	// at Path, which is without meaning otherwise.
	Postgres Secret
	// Keys are what its secrets are sealed with, 32 bytes each: that of key_file or key_env, and those of old_key_files,
	// which open what is not sealed with the first one yet. None: nothing is sealed.
	Keys []Secret
	// KeepEvents is how long it is known what happened; default 90 days, 1 day to 3650.
	KeepEvents time.Duration
}

// DNS is the [dns] table: whom stspub asks.
type DNS struct {
	Resolvers []string            // "ADDR:PORT"; default: those of /etc/resolv.conf
	Stub      map[string][]string // zone ("." for all) → "ADDR:PORT" of the servers to ask in place of its delegated ones
}

// ACME is an [acme.NAME] table: one certification authority.
type ACME struct {
	Name      string
	Directory string // an https URL, of no other table
	Email     string // may be empty
	CAFile    string // trust for the directory's HTTPS, PEM; default: the system's
	Profile   string // the kind of certificate to ask for, of those in the directory; empty: the authority's default
	// EABKeyID and EABKey bind the account to one that the operator has at the authority (RFC 8555, Section 7.3.4). Key is
	// the HMAC key itself, not base64. [LoadFiles] may leave it empty, which does for an account that is already registered.
	EABKeyID string
	EABKey   Secret
	Staging  bool // its certificates are trusted by no sender
	NoHTTP   bool // [server] http is "off", so HTTP-01 cannot be answered
	Budget   Budget
}

// Budget is what one authority is asked for at most. All are at least 1.
type Budget struct {
	Orders       int           // new orders in any OrdersPeriod, but for renewals that the authority does not count; default 280
	OrdersPeriod time.Duration // default 3h
	DomainOrders int           // those of them of one registered domain in any DomainPeriod; default 45
	DomainPeriod time.Duration // default 1w
	Failures     int           // failed validations of one name in any hour; default 4
	InFlight     int           // orders at the same time, if PerSecond carries them; default 8
	PerSecond    int           // requests to the authority a second; default 10
}

// RequestsAnOrder is about how many requests an order takes.
const RequestsAnOrder = 10

// Carried is how many orders can run at the same time within PerSecond: each has five minutes, and may have to ask thrice as
// often as most do.
func (b Budget) Carried() int { return b.PerSecond * 5 * 60 / (3 * RequestsAnOrder) }

// Account is an [account.NAME] table: credentials at one DNS provider.
type Account struct {
	Name     string
	Provider string // "cloudflare", "cloudns", "desec", "mythicbeasts", "ovh", "powerdns", "rfc2136" or "route53"
	// Fault is why the secret could not be read, and is then missing: nothing can be written by the account. Only
	// [LoadFiles] leaves one out. Empty: nothing is missing.
	Fault string

	APIToken Secret // cloudflare, desec: api_token_file or api_token_env
	APIURL   string // all with an HTTP API; empty: the provider's own; cloudflare: default "https://api.cloudflare.com/client/v4"

	KeyID       string // route53: access_key_id; cloudns: auth_id or sub_auth_id; ovh: application_key; mythicbeasts: key_id
	SubUser     bool   // cloudns: KeyID is a sub_auth_id
	Secret      Secret // route53: secret_access_key_…; cloudns: auth_password_…; ovh: application_secret_…; mythicbeasts: secret_…
	ConsumerKey Secret // ovh: consumer_key_file or consumer_key_env

	// Server is, for rfc2136, "HOST:PORT" of the primary, an address or a name, port 53 when left out; for powerdns, the URL
	// of its web server.
	Server       string
	KeyName      string // rfc2136: TSIG key name, lower case, without trailing dot; empty: unsigned
	KeyAlgorithm string // rfc2136: "hmac-sha256" (default), or with sha1, sha224, sha384, sha512; lower case, no trailing dot
	Key          Secret // rfc2136: base64, not empty where KeyName is not; key_file or key_env

	APIKey   Secret // powerdns: api_key_file or api_key_env
	ServerID string // powerdns: default "localhost"
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
	// NodeGrace is how long publications wait for a node that is silent; default 10m, 1s..24h.
	NodeGrace time.Duration
}

// Check is the [check] table: how stspub looks at itself from outside.
type Check struct {
	Every time.Duration // how often a live domain is checked, a shared record hourly at least; default 24h, 1s..168h
	// AllowPrivate are addresses outside of the public Internet that MX, policy hosts and name servers may have; others are
	// not connected to, but for our own and, for zones of the operator, their name servers. Default: none.
	AllowPrivate []netip.Prefix

	HTTPPort  int    // where authorities validate by HTTP-01; 80 but in laboratories
	HTTPSPort int    // where senders reach policy hosts; 443 but in laboratories
	SMTPPort  int    // where MX are reached; 25 but in laboratories
	CAFile    string // trust beside the system's, PEM; for laboratories
}

// MaxRollout is how long a roll-out may take.
const MaxRollout = 365 * day

// MXSet is an [mxset.NAME] table.
type MXSet struct {
	Name   string
	Policy policygen.Policy
	// Rollout is how long a domain is in mode testing before it gets Policy.Mode enforce; zero: not at all. At most
	// MaxRollout. Beside another mode it does nothing, so that one line takes an MX set out of enforce and back.
	Rollout time.Duration
}

// Domain is a [[domain]] table, or a name from the domains or domains_file of an MX set.
type Domain struct {
	Name    policygen.Name
	MXSet   string
	Publish string // "zone", "alias", "shared" or "manual"
	Account string // the account that holds the record: for alias and shared that of [alias], for manual none
	Adopt   bool
	TLSRPT  string // content of the TLSRPT record at _smtp._tls.<domain>; empty: none
}
