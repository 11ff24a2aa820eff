// Package store keeps what stspub must not forget: the domains it publishes and how far each has come, the ids it ever
// wrote, the policies it ever served, certificates and ACME data. It is the only place with SQL.
//
// A domain's life here: Declare adds it, Claim lends it to one worker at a time, Save keeps each step that the worker
// takes and enters policies and ids in the books, Delete ends it. The books outlive it: senders hold a policy for its
// max_age, and an id stands for one policy for ever (RFC 8461, Section 3.1).
//
// There are two engines, [SQLite] for one process and [Postgres] for several. What they decide stands once, in SQL that both
// understand.
//
// It decides nothing: what to write next is decided by package publish. What it promises is order and durability: when
// a method returns nil, what it wrote survives a crash of the process and of the machine.
package store

import (
	"context"
	"errors"
	"time"

	"github.com/stspub/stspub/internal/policygen"
)

// Errors that callers branch on. They are wrapped with the name of what was asked for.
var (
	// ErrNotFound says that there is no such row.
	ErrNotFound = errors.New("not found")
	// ErrStale says that the row was changed since it was read; read it again and decide again.
	ErrStale = errors.New("changed since it was read")
	// ErrLocked says that another process has the store open.
	ErrLocked = errors.New("in use by another process")
	// ErrUnsure says that the way to the store was cut while it committed, so what was to be written is there or is not;
	// read it again.
	ErrUnsure = errors.New("not known whether it was written")
	// ErrPutBack says that the store knows less than it did, as after a fail-over that lost something; read it anew.
	ErrPutBack = errors.New("the store does not know any more what it was told; it was put back to an earlier time")
	// ErrIDReused says that an id was to be intended twice. RFC 8461, Section 3.1: an id names one instance of a policy.
	ErrIDReused = errors.New("id was used before")
)

// How the _mta-sts name of a domain is reached.
const (
	PublishZone  = "zone"  // we write _mta-sts.<domain> in the domain's own zone
	PublishAlias = "alias" // the customer's _mta-sts is a CNAME to a record of ours
	// PublishShared: the customer's _mta-sts is a CNAME to a name below the shared record of the MX set.
	PublishShared = "shared"
	PublishManual = "manual" // the customer writes the TXT
	// PublishWildcard marks the shared record itself, which has a row of its own: its name is the record's, it serves
	// nobody, and its Served is the text of all domains that are attached to it.
	PublishWildcard = "wildcard"
)

// Who declared a domain.
const (
	OwnerFile = "file" // the configuration file; its absence there removes the domain
	OwnerAPI  = "api"
)

// Domain is one policy domain: what is wanted of it, and how far publication has come.
type Domain struct {
	Name    policygen.Name
	Tenant  string
	MXSet   string
	Publish string    // one of the constants above
	Account string    // the account that holds the record
	Owner   string    // OwnerFile or OwnerAPI
	Adopt   bool      // a foreign STSv1 record may be replaced
	TLSRPT  string    // content of the TLSRPT record that is wanted; empty: none
	Added   time.Time // when it came, or came from another tenant
	Removed time.Time // zero: wanted. Otherwise the domain drains since then.

	State State

	// Due is when the reconciler looks at the domain next.
	Due time.Time
	// Version changes with every write; see [Store.Save].
	Version int64
	// Change is the number of LastChange of the write that made Served what it is; 0: it never changed. Only read.
	Change int64
}

// State is what the reconciler remembers of a domain. Only package publish writes it.
type State struct {
	// Served is the policy text that the nodes serve; empty: none (404).
	Served string
	// Dirty says that Served is not what ID stands for, so a new id is needed. It is committed before any node may
	// serve a changed text, and only a verified new id clears it.
	Dirty bool
	// Live is since when Served is seen live at all nodes without interruption; zero: it is not, or the store is one process's
	// alone, which remembers it by its monotonic clock.
	Live time.Time
	// Tainted says that some node was passed over that may serve another text than Served, so an id that was announced
	// meanwhile may be filed with that one.
	Tainted bool
	// Record is the owner name of the TXT record that the ids are for, without trailing dot.
	Record string
	// Zone is the zone of Record, set before the first write and empty while there was none.
	Zone string
	// ID is the id last seen at every authoritative server; empty: never.
	ID string
	// Intended is the id committed for writing and not yet verified; empty: none. It stands for Served.
	Intended string
	// Wrote is when Intended was last written, and zero while it was not.
	Wrote time.Time
	// Fresh says that neither a policy host nor an _mta-sts record existed when the domain came, so nobody can hold an
	// older answer and the settle time may be skipped.
	Fresh bool
	// Settle is the end of a settle time longer than the configured one: what the caches of the world may still hold
	// of the place where the policy host was before. Zero: none.
	Settle time.Time
	// Handover is how long caches may hold the old answers of a policy host that points elsewhere, the longest seen;
	// it becomes part of Settle when the host arrives here. Zero: never seen elsewhere.
	Handover time.Duration
	// OldTTL is the TTL with which the record was seen that was last replaced or deleted: so long do caches hold it.
	OldTTL time.Duration
	// Horizon is when a draining domain's last policy has expired at every sender; zero while not known.
	Horizon time.Time
	// Deleted is when the draining domain's TXT was seen to be gone from every authoritative server.
	Deleted time.Time
	// Away is since when the customer's DNS surely points elsewhere; zero: it does not.
	Away time.Time
	// Forced is the policy text that an operator forced although it strands mail; of a shared record, the one that he wants
	// for those whom it does not strand.
	Forced string

	// Detached says since when a domain of a shared record has a record of its own, an alias record: it is when that was
	// decided, or when its newest id was verified. Zero: it is attached.
	Detached time.Time
	// Staged is since when the domain is live in mode testing while its roll-out lasts; zero: it is not.
	Staged time.Time
	// Promoted is when the roll-out ended and the mode of the MX set began; zero: it did not.
	Promoted time.Time
	// Expelled says that an operator ends the drain now, whatever senders still hold.
	Expelled bool
	// Pinned says that an operator took the domain back to mode testing, until he promotes it.
	Pinned bool

	// Step is the step the domain is in, Reason what it waits for (empty: nothing), Since when that began.
	Step   string
	Reason string
	Since  time.Time
	// Fault says that Reason needs a human.
	Fault bool
	// Failures counts tries in a row without progress.
	Failures int
	// Checked is when the domain was last found live and right.
	Checked time.Time
	// Findings are what is wrong, by code.
	Findings []Finding

	Report Report
}

// Finding is one thing that is wrong with a domain.
type Finding struct {
	Code  string    `json:"code"`  // stable, for machines
	Fault bool      `json:"fault"` // a human has to act; without, it may pass or be lived with
	Since time.Time `json:"since"`
	Text  string    `json:"text"` // what is wrong, and what to do
}

// Report is what the reconciler remembers of the TLSRPT record beside a domain (RFC 8460). It is zero where none is
// wanted and none of ours is left.
type Report struct {
	// Record is the owner name of the record, without trailing dot, and Zone its zone, set before the first write.
	Record, Zone string
	// Text are the values that were committed for writing, the last one last, a line each: only these are ours to delete.
	Text string
	// Wrote is when the record was last written, Verified when it was last seen right at every authoritative server. Zero:
	// never, or not as it is wanted now.
	Wrote, Verified time.Time
	// Problem is why it is not as it is wanted; empty: it is, or nobody looked yet.
	Problem string
	// Failures counts looks in a row with a Problem.
	Failures int
}

// MXSet is a named list of MX patterns as an operator configures it.
type MXSet struct {
	Tenant string
	Name   string
	Owner  string // empty: nobody declares it any more; a [Declaration] does not read it
	Policy policygen.Policy
	// Rollout is how long a domain is in mode testing before it gets Policy.Mode enforce; zero: not at all.
	Rollout time.Duration
}

// Declaration is all that one owner declares at once.
type Declaration struct {
	Owner string
	// Digest, if not empty, is that of a configuration that is taken with it, for the [Event].
	Digest  string
	MXSets  []MXSet
	Domains []Domain // only the fields above State are read; Added and Removed are the store's
}

// Change counts what a [Declaration] changed.
type Change struct {
	Added, Changed, Removed, Restored int
}

// Served is one policy of a domain's history.
type Served struct {
	Text    string
	Foreign bool      // served by somebody else before adoption
	From    time.Time // first served
	To      time.Time // last served; zero: still served
}

// WrittenID is one id that was ever intended for a record.
type WrittenID struct {
	ID       string
	Text     string // the policy text it stood for
	Intended time.Time
	Verified time.Time // zero: never
}

// Certificate is a certificate with its key. Name is a policy host, or the service's own host name.
type Certificate struct {
	Name                string
	Key                 []byte   // PKCS #8, DER
	Chain               [][]byte // DER, leaf first
	NotBefore, NotAfter time.Time
	Authority           string    // name of the [acme.NAME] table it came from; empty: not known
	Renew               time.Time // when it is planned to be renewed; zero: not known
}

// Store is the contract of every engine. Methods may be called at the same time; each is one transaction. Times are
// kept to the microsecond, in UTC; what is finer is cut off. An engine may keep U+FFFD in the place of what is no UTF-8 in a
// text, or NUL. When ctx ends before a method does, its error wraps that of ctx; an engine that is reached over a network
// ends by itself too, in under a minute where little is to be done. Package storetest is the contract as tests.
type Store interface {
	// Declare makes d the whole of what its owner declares: new domains are added with Due now, changed ones (MX set,
	// publish, account, adopt, TLSRPT, or the policy of their MX set) become due now, missing ones get Removed = now, removed ones
	// that are declared again lose it; both are due now too, and all of them lose their claim. Domains and MX sets of
	// another owner are an error, as are those declared twice and a domain whose MX set nobody declares; then nothing is
	// changed. A domain of another owner that was removed and belongs to the same tenant is no error, it changes its owner.
	// MX sets of no domain's use and no longer declared are deleted. What equals the last declaration is not
	// written at all: so an Adopt that came by Save stays until the declared one changes.
	//
	// A shared record is nobody's own: it may be declared by all owners of domains with publish shared of its MX set, and
	// is missing when nobody does that has one.
	Declare(ctx context.Context, d Declaration, now time.Time) (Change, error)
	// MXSets returns all MX sets, MXSet one, or ErrNotFound.
	MXSets(ctx context.Context) ([]MXSet, error)
	MXSet(ctx context.Context, tenant, name string) (MXSet, error)

	// Domain returns one domain, or ErrNotFound.
	Domain(ctx context.Context, name policygen.Name) (Domain, error)
	// EachDomain calls f for every domain by name (by bytes) until f returns an error, which it returns. It shows the
	// domains of one moment, holds a few of them in memory, and f may call the Store.
	EachDomain(ctx context.Context, f func(Domain) error) error
	// EachServed calls f, as EachDomain does but in any order, with name and text of every domain that is served one,
	// shared records left out. Both are only valid in f. It is what a start waits for, so it reads nothing else.
	EachServed(ctx context.Context, f func(name, text []byte) error) error
	// Claim returns at most n domains with Due <= now, shared records first (a hundred thousand domains may wait for one),
	// then the most overdue, and moves their Due to now+lease, so that nobody else claims them meanwhile. Those of the tenants
	// in but are left out, as if there were none; the more of theirs are due, the longer it takes. What was claimed and never saved comes back by itself. A claim is a write: it
	// changes Version, so a claimer whose lease ran out and was taken over gets ErrStale. It ends when a Save moves Due;
	// one that leaves Due as it is keeps it.
	Claim(ctx context.Context, now time.Time, lease time.Duration, n int, but ...string) ([]Domain, error)
	// NextDue returns the earliest Due, or ErrNotFound when there are no domains. Those of the tenants in but are left out.
	NextDue(ctx context.Context, but ...string) (time.Time, error)
	// EachShared calls f, as EachDomain does, for the domains with publish shared of one MX set.
	EachShared(ctx context.Context, tenant, mxset string, f func(Domain) error) error
	// Counts counts the domains and shared records, at a small part of the cost of reading them.
	Counts(ctx context.Context) (Counts, error)
	// Wake makes a domain due now, or every domain when name is empty. It does not change Version. A claimed domain stays
	// its claimer's, and becomes due when the claim ends by Save, whatever Due that says. One that is not there is
	// ErrNotFound.
	Wake(ctx context.Context, name policygen.Name, now time.Time) error
	// WakeTainted makes all domains due now whose State is Tainted, as Wake does.
	WakeTainted(ctx context.Context, now time.Time) error
	// WakeFaulty makes all domains of a tenant due now that name an account and whose State has a Fault, as Wake does.
	WakeFaulty(ctx context.Context, tenant, account string, now time.Time) error
	// Save writes State, Adopt and Due if d.Version is still the stored one (else ErrStale), and sets the new Version in d.
	// In the same transaction it keeps the books: a changed Served closes the history's open row at now and opens a new
	// one; a new Intended is entered among the written ids (ErrIDReused if any record ever had it); Intended becoming ID
	// marks it verified. A domain that is not there any more is ErrStale and ErrNotFound in one; one that came back has
	// another Version. After an error d is as it was.
	//
	// A shared record and the domains attached to it (publish shared, Detached zero, Served set, Record below it) serve one
	// text: when Served of a row with PublishWildcard changes, theirs does in the same transaction, with their history; those
	// not yet promoted are with it, and who has one of them claimed gets ErrStale. An attached domain whose Served is not that
	// of the shared record of its MX set is ErrStale.
	Save(ctx context.Context, d *Domain, now time.Time) error
	// Delete forgets a domain and its state, with the errors of Save. Its history and ids stay, for the day it comes back.
	Delete(ctx context.Context, d Domain) error

	// History returns the policies that were served for a domain, oldest first.
	History(ctx context.Context, name policygen.Name) ([]Served, error)
	// AddForeign enters a policy that somebody else serves or served, for a domain that need not be there; To is when it
	// was last seen. The same text again only moves To.
	AddForeign(ctx context.Context, name policygen.Name, text string, now time.Time) error
	// IDs returns the ids that were ever intended for a record, newest first.
	IDs(ctx context.Context, record string) ([]WrittenID, error)

	// EachCertificate calls f for every certificate, in any order, as EachDomain does for domains. What f gets is its own.
	// Damaged ones are left out; the error is a [*DamagedError] then, after all others.
	EachCertificate(ctx context.Context, f func(Certificate) error) error
	// Certificate returns one, or ErrNotFound, or a [*DamagedError].
	Certificate(ctx context.Context, name string) (Certificate, error)
	// SaveCertificate adds or replaces one, and forgets the failures of its order.
	SaveCertificate(ctx context.Context, c Certificate) error
	// DeleteCertificate forgets the certificate, its key and its order. One that is not there is no error.
	DeleteCertificate(ctx context.Context, name string) error
	// LastChange returns a number that every write of a certificate raises, and of what a domain is served, and others may:
	// who reads after it sees all changes up to it.
	LastChange(ctx context.Context) (int64, error)
	// ServedSince calls f, as EachDomain does but in any order, for every domain whose text changed after a number of
	// LastChange, maybe earlier, with what it is served now; the text is empty when it is served none, or was deleted.
	// Shared records are left out. It returns the number to ask with next, at least up to which f was told. A number that
	// this store never had is ErrNotFound: it is another store, or was restored; and so is one from before what PruneDropped
	// forgot: read EachServed anew.
	ServedSince(ctx context.Context, after int64, f func(name policygen.Name, text string) error) (int64, error)
	// Wait returns nil when LastChange is greater than after, soon after that came to be, in whatever process.
	Wait(ctx context.Context, after int64) error
	// MarkCertificates keeps that somebody has a copy of all certificates with all changes up to a number of LastChange,
	// under a mark, a text that nobody used before and nobody can guess: a store that knows it is the one that was
	// copied, not an older or another one. The last 16 marks are kept.
	MarkCertificates(ctx context.Context, mark string, change int64) error
	// CertificatesSince calls f, as EachCertificate does, for every certificate that changed since the copy of a mark, or
	// earlier, and for those that were deleted since, without key and chain. A mark that is not known is ErrNotFound; damaged
	// ones are as in EachCertificate.
	CertificatesSince(ctx context.Context, mark string, f func(Certificate) error) error
	// CertificatesAfter is CertificatesSince for who knows all changes up to a number of LastChange. It returns the number to
	// ask with next. It returns ErrNotFound as ServedSince does.
	CertificatesAfter(ctx context.Context, after int64, f func(Certificate) error) (int64, error)
	// PruneDropped forgets what was deleted, domains and certificates, as far as every node has acknowledged it that has not
	// deregistered, and as every copy of the last 16 marks has it. Who comes back with an older number gets ErrNotFound.
	PruneDropped(ctx context.Context) error
	// Orders returns the orders that failed last time, and those without failures that have a Next.
	Orders(ctx context.Context) ([]Order, error)
	// SaveOrder adds or replaces what is kept of the order of a name.
	SaveOrder(ctx context.Context, o Order) error
	// PlanOrder keeps that a certificate, known by its name and times, is to be renewed at next, whatever was planned. It does
	// nothing where another certificate or none is there by now, or where an order of the name has failed.
	PlanOrder(ctx context.Context, name string, notBefore, notAfter, next time.Time) error

	// Journal returns what was appended or ended with Changed greater than after, by Changed.
	Journal(ctx context.Context, after int64) ([]JournalEntry, error)
	// AppendJournal enters an order that is to be sent, and sets Seq and Changed in e. If there is an entry with a Seq
	// greater than last, the error wraps ErrStale: somebody else appended it, and whether e may be sent is to be decided
	// again. Only the fields up to Tenant are written.
	AppendJournal(ctx context.Context, last int64, e *JournalEntry) error
	// EndJournal writes Exempt, Ended and what is below it. What was pruned is no error.
	EndJournal(ctx context.Context, e JournalEntry) error
	// PruneJournal deletes what was begun before counted, and if exempt before exempt, but for what stops its CA at now; and
	// what was begun more than a day after now: the clock was ahead then.
	PruneJournal(ctx context.Context, counted, exempt, now time.Time) error

	// Value returns a value of the key-value part, or ErrNotFound. Keys begin with the name of their user and a slash:
	// "acme/…" is the account key and the challenge tokens, so that any node can answer a challenge and a restart keeps
	// the account; "publish/…" is what the reconciler knows beside the domains.
	Value(ctx context.Context, key string) ([]byte, error)
	// SetValue writes one.
	SetValue(ctx context.Context, key string, value []byte) error
	// EnsureValue writes one unless there is one, and returns the one that is there then: of several callers at the same
	// time, in whatever process, all get the same.
	EnsureValue(ctx context.Context, key string, value []byte) ([]byte, error)
	// DeleteValue deletes one. One that is not there is no error.
	DeleteValue(ctx context.Context, key string) error

	// Reseal seals everything with the newest key of the store's [Keyring] that is not, a few rows at a time beside other
	// calls. From then on the store opens without the older keys, unless a node that has not deregistered seals with one.
	// Without a Keyring it does nothing.
	Reseal(ctx context.Context) (Resealed, error)

	// Beat keeps that a node lives; ID, Address and Acknowledged of n are written, and it is deregistered no more. With the
	// first one that a process makes, what an earlier process of that node had claimed is free, and its orders are over; from
	// then on that one gets ErrLocked, and so do two processes with one id, until the one that has it is deregistered or
	// silent for a minute. If the store forgot what this process had it acknowledge, the error wraps ErrPutBack, once: the
	// numbers that it lost are given to other changes.
	Beat(ctx context.Context, n Node) error
	// Nodes returns all nodes that ever were, by ID.
	Nodes(ctx context.Context) ([]Node, error)
	// Deregister keeps that a node is gone, and frees what it had claimed. One that never was is ErrNotFound, and the one that
	// this process beats for is ErrLocked where another process has its id.
	Deregister(ctx context.Context, id string) error

	// Now returns the time by which domains are claimed: of several processes on one store all get the same.
	Now(ctx context.Context) (time.Time, error)

	Tenancy
	Webhooks
	Audit

	// What the API declares.

	// PutMXSet declares one MX set for its owner, and says whether that changed anything. If its policy or its roll-out is
	// another one, its domains become due now and lose their claim, but for those that drain. One of another owner is an
	// [*OwnedError]. With match, if it is not nil, the set that is there (nil: none) has to be what the caller expects, else the
	// error is ErrMismatch; it is called within the transaction, perhaps more than once, and must not call the Store.
	PutMXSet(ctx context.Context, m MXSet, match func(*MXSet) bool, now time.Time) (bool, error)
	// DeleteMXSet forgets an MX set of an owner. While a domain that does not drain uses it that is an [*InUseError]; one
	// that drains has what it needs. One that is not there is ErrNotFound, one of another owner an [*OwnedError]. Match is as
	// in PutMXSet.
	DeleteMXSet(ctx context.Context, tenant, name, owner string, match func(*MXSet) bool) error
	// ApplyDomains makes the changes of a batch in one transaction, and returns an outcome for each. The error is one of the
	// store, and then nothing is changed. What is changed becomes due now and loses its claim; what is as it is wanted
	// already is not written at all. The shared record of an MX set drains when its last domain does.
	ApplyDomains(ctx context.Context, b Batch, now time.Time) ([]DomainOutcome, error)
	// ReleaseDomain notes whether the tenant of a domain lets another one have it, until that is so. A domain that is not
	// there or not the tenant's is ErrNotFound.
	ReleaseDomain(ctx context.Context, tenant string, name policygen.Name, released bool) error
	// DomainsOf returns the domains of a tenant by name (by bytes), from the first one after a name, n at most, without
	// shared records. The cost of a page does not grow with the number of domains, unless a filter for both MX set and step
	// finds few of many.
	DomainsOf(ctx context.Context, tenant string, filter DomainFilter, after policygen.Name, n int) ([]Domain, error)
	// CountDomains counts the domains of a tenant that an owner declares, without those that drain and shared records.
	CountDomains(ctx context.Context, tenant, owner string) (int, error)

	// Accounts returns all accounts by tenant and name, also those that do not open.
	Accounts(ctx context.Context) ([]Account, error)
	// Account returns one, also if it does not open, or ErrNotFound.
	Account(ctx context.Context, tenant, name string) (Account, error)
	// PutAccount adds or replaces one. IfMatch, if not empty, is the Version that the one before must have, or "*"; else the
	// error is ErrMismatch.
	PutAccount(ctx context.Context, a Account, ifMatch string) error
	// DeleteAccount forgets one. While a domain of its tenant names it that is an [*InUseError]; one that is not there is
	// ErrNotFound. IfMatch is as in PutAccount.
	DeleteAccount(ctx context.Context, tenant, name, ifMatch string) error

	// DomainClaim returns the claim of a tenant to a domain, or ErrNotFound.
	DomainClaim(ctx context.Context, tenant string, name policygen.Name) (DomainClaim, error)
	// ClaimsOf returns the claims of a tenant by the name of the domain, from the first one after a name, n at most.
	ClaimsOf(ctx context.Context, tenant string, after policygen.Name, n int) ([]DomainClaim, error)
	// DueClaims returns at most n claims with Due <= now that have not expired, the most overdue first, and moves their Due
	// to now+lease, so that nobody else looks at them meanwhile. Those of the tenants in but are left out.
	DueClaims(ctx context.Context, now time.Time, lease time.Duration, n int, but ...string) ([]DomainClaim, error)
	// SaveClaim writes Due and what is below it. A claim that is not there any more, or has another Token, is ErrNotFound.
	SaveClaim(ctx context.Context, c DomainClaim) error
	// ExpireClaims forgets the claims with Expires <= now, and returns how many those were.
	ExpireClaims(ctx context.Context, now time.Time) (int, error)

	// Ping says whether the store can be written, by writing. It waits for writes under way, so give it a deadline.
	Ping(ctx context.Context) error
	// Close gives the store back. It is called when no other call is under way; a second one does nothing.
	Close() error
}
