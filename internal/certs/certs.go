// Package certs obtains, keeps and serves the certificates of policy hosts.
//
// RFC 8461, Section 3.3, wants a certificate for mta-sts.<domain> at every policy host, and a sender that meets none
// has no policy, so certificates must be there before the first sender is, and must never run out. Four parts do it:
//
//   - [ACME] obtains one certificate from a certification authority that speaks ACME (RFC 8555). A [Responder] answers the
//     HTTP-01 and TLS-ALPN-01 challenges of all of them. To use them is to accept the authorities' terms of service.
//   - [Keeper] is the scheduler: it orders what is wanted and missing, the most urgent first and within what each
//     authority allows, renews well before the end whether or not anybody asks for the name, and tries again, with growing
//     pauses, what failed. Every order is in the store's journal before it is sent, so that neither a restart nor another
//     process on the same store makes one too many.
//   - [Gate] looks at a name before every order, so that none is sent that the authority cannot fulfil.
//   - The Keeper's memory is what [Keeper.GetCertificate] serves from. A handshake never orders, never waits and never
//     touches the store. A name that it has no valid certificate for is answered by the TLS alert unrecognized_name,
//     never by another name's certificate (RFC 8461, Section 7.1).
//
// Only names that somebody asked for with [Keeper.Want] are ever ordered. All keys are ECDSA P-256 and fresh for each
// certificate.
package certs

import (
	"context"
	"crypto/tls"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/store"
)

// Store is what a [Keeper] needs of the store; [store.Store] has it.
type Store interface {
	EachCertificate(ctx context.Context, f func(store.Certificate) error) error
	Certificate(ctx context.Context, name string) (store.Certificate, error)
	SaveCertificate(ctx context.Context, c store.Certificate) error
	DeleteCertificate(ctx context.Context, name string) error
	LastChange(ctx context.Context) (int64, error)
	MarkCertificates(ctx context.Context, mark string, change int64) error
	CertificatesSince(ctx context.Context, mark string, f func(store.Certificate) error) error
	CertificatesAfter(ctx context.Context, after int64, f func(store.Certificate) error) (int64, error)
	Orders(ctx context.Context) ([]store.Order, error)
	SaveOrder(ctx context.Context, o store.Order) error
	PlanOrder(ctx context.Context, name string, notBefore, notAfter, next time.Time) error
	Journal(ctx context.Context, after int64) ([]store.JournalEntry, error)
	AppendJournal(ctx context.Context, last int64, e *store.JournalEntry) error
	EndJournal(ctx context.Context, e store.JournalEntry) error
	PruneJournal(ctx context.Context, counted, exempt, now time.Time) error
	Tenants(ctx context.Context) ([]store.Tenant, error)
	Value(ctx context.Context, key string) ([]byte, error)
	SetValue(ctx context.Context, key string, value []byte) error
	DeleteValue(ctx context.Context, key string) error
}

// Config says what a [Keeper] works with. Zero values get their defaults.
type Config struct {
	Store Store
	// Authorities are those to order from, in order of preference. None: nothing is ordered.
	Authorities []Authority
	// Budgets are what each of Authorities is asked for at most. Nil: [config.DefaultBudget] for all.
	Budgets []config.Budget
	Log     *slog.Logger

	// Gate is asked before every order to an authority whether it can end well. Its error, which should say what to do, is
	// shown, and holds the order. Nil: it can.
	Gate func(ctx context.Context, name string, by Authority) error

	// Challenge answers the hellos of TLS-ALPN-01 (RFC 8737); see [Responder.GetCertificate]. Nil refuses them.
	Challenge func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// OnChange is called when a certificate of that name arrived, or an order for it failed, or it was dropped. It may
	// write to the store until its context ends, which is soon; no lock is held. Nil: nobody is told.
	OnChange func(ctx context.Context, name string)
	// Copy is the path of a file in which a copy of all certificates is kept, so that the next start is quick; see
	// [Keeper.RunCopies]. Empty: there is none.
	Copy string
	// Shared says that other processes write to the store too: the copy promises only what [Keeper.Refresh] took in.
	Shared bool
	// Keys seal the copy, if those of the store are sealed.
	Keys *store.Keyring
	// FirstPause is the pause after the first failed order of a name; default 5 minutes, which stays within the failed
	// validations that public authorities allow a name in an hour. It grows threefold up to a day. An
	// authority that is out of reach is tried again after a fifteenth of it, growing up to a quarter of an hour.
	FirstPause time.Duration
	// MoveAfter is how long an authority has to be out of reach, to want no orders, or to refuse a name, before names move
	// to the next; default 6 hours. A name whose certificate expires sooner waits for half of the time that is left to it,
	// and for a quarter of an hour at least.
	MoveAfter time.Duration
}

// strangersPerSecond is how many challenges of any names are looked up: anybody may send them, and each reads the store.
// Another node may want a name, and have it validated, some time before this one knows.
const strangersPerSecond = 20

// Keeper keeps certificates. Its methods may be called at the same time.
type Keeper struct {
	store     Store
	log       *slog.Logger
	gate      func(context.Context, string, Authority) error
	challenge func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	strangers *rate.Limiter // challenges of names that need not be wanted here
	onChange  func(context.Context, string)
	first     time.Duration
	started   time.Time
	copyPath  string
	shared    bool
	refreshed atomic.Int64 // up to this change of the store all is in memory, where it is shared
	keys      *store.Keyring

	memory   *memory
	journal  journal
	schedule schedule
	keeping  sync.Mutex    // held while a silence is written; it is taken before the schedule's lock
	issued   atomic.Uint64 // orders that ended with a certificate
	failed   atomic.Uint64 // orders that did not
}

// New makes a Keeper. Call [Keeper.Load] before serving, and [Keeper.Run] to have certificates ordered.
func New(c Config) *Keeper {
	if c.FirstPause <= 0 {
		c.FirstPause = 5 * time.Minute
	}
	if c.MoveAfter <= 0 {
		c.MoveAfter = 6 * time.Hour
	}
	if c.OnChange == nil {
		c.OnChange = func(context.Context, string) {}
	}
	if c.Gate == nil {
		c.Gate = func(context.Context, string, Authority) error { return nil }
	}
	if c.Challenge == nil {
		c.Challenge = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil }
	}
	if c.Budgets == nil {
		c.Budgets = slices.Repeat([]config.Budget{config.DefaultBudget()}, len(c.Authorities))
	}
	k := &Keeper{
		store:     c.Store,
		log:       c.Log,
		gate:      c.Gate,
		challenge: c.Challenge,
		strangers: rate.NewLimiter(strangersPerSecond, strangersPerSecond),
		onChange:  c.OnChange,
		first:     c.FirstPause,
		started:   time.Now(),
		memory:    newMemory(),
		copyPath:  c.Copy,
		shared:    c.Shared,
		keys:      c.Keys,
	}
	k.journal.init(c.Store)
	k.schedule.init(c.Authorities, c.Budgets, c.FirstPause, c.MoveAfter)
	return k
}
