// Package certs obtains, keeps and serves the certificates of policy hosts.
//
// RFC 8461, Section 3.3, wants a certificate for mta-sts.<domain> at every policy host, and a sender that meets none
// has no policy, so certificates must be there before the first sender is, and must never run out. Three parts do it:
//
//   - [ACME] obtains one certificate from a certification authority that speaks ACME (RFC 8555), and answers the
//     authority's HTTP-01 and TLS-ALPN-01 challenges. To use it is to accept the authority's terms of service.
//   - [Keeper] is the scheduler: it orders what is wanted and missing, renews well before the end whether or not
//     anybody asks for the name, and tries again, with growing pauses, what failed.
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
	"sync/atomic"
	"time"

	"github.com/stspub/stspub/internal/store"
)

// Store is what a [Keeper] needs of the store; [store.Store] has it.
type Store interface {
	EachCertificate(ctx context.Context, f func(store.Certificate) error) error
	SaveCertificate(ctx context.Context, c store.Certificate) error
	DeleteCertificate(ctx context.Context, name string) error
	LastChange(ctx context.Context) (int64, error)
	MarkCertificates(ctx context.Context, mark string, change int64) error
	CertificatesSince(ctx context.Context, mark string, f func(store.Certificate) error) error
	Orders(ctx context.Context) ([]store.Order, error)
	SaveOrder(ctx context.Context, o store.Order) error
}

// Config says what a [Keeper] works with. Zero values get their defaults.
type Config struct {
	Store Store
	// Authorities are those to order from, in order of preference. Only the first is used for now.
	Authorities []Authority
	Log         *slog.Logger

	// Challenge answers the hellos of TLS-ALPN-01 (RFC 8737); see [ACME.GetCertificate]. Nil refuses them.
	Challenge func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// OnChange is called when a certificate of that name arrived, or an order for it failed, or it was dropped. It must
	// not block, and no lock is held. Nil: nobody is told.
	OnChange func(name string)
	// Copy is the path of a file in which a copy of all certificates is kept, so that the next start is quick; see
	// [Keeper.RunCopies]. Empty: there is none.
	Copy string
	// Keys seal the copy, if those of the store are sealed.
	Keys *store.Keyring
	// Parallel is how many orders run at the same time; default 4. An order that takes longer than 10 s is counted
	// apart, so that a hanging name delays no other; of those there are at most 8 times as many.
	Parallel int
	// FirstPause is the pause after the first failed order of a name; default 5 minutes, which stays within the failed
	// validations that public authorities allow a name in an hour. It grows threefold up to a day.
	FirstPause time.Duration
}

// Keeper keeps certificates. Its methods may be called at the same time.
type Keeper struct {
	store     Store
	issuers   []Authority
	log       *slog.Logger
	challenge func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	onChange  func(string)
	first     time.Duration
	copyPath  string
	keys      *store.Keyring

	memory   *memory
	schedule schedule
	issued   atomic.Uint64 // orders that ended with a certificate
	failed   atomic.Uint64 // orders that did not
}

// New makes a Keeper. Call [Keeper.Load] before serving, and [Keeper.Run] to have certificates ordered.
func New(c Config) *Keeper {
	if c.Parallel <= 0 {
		c.Parallel = 4
	}
	if c.FirstPause <= 0 {
		c.FirstPause = 5 * time.Minute
	}
	if c.OnChange == nil {
		c.OnChange = func(string) {}
	}
	if c.Challenge == nil {
		c.Challenge = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil }
	}
	k := &Keeper{
		store:     c.Store,
		issuers:   c.Authorities,
		log:       c.Log,
		challenge: c.Challenge,
		onChange:  c.OnChange,
		first:     c.FirstPause,
		memory:    newMemory(),
		copyPath:  c.Copy,
		keys:      c.Keys,
	}
	k.schedule.init(c.Parallel)
	return k
}
