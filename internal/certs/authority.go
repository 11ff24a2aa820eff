package certs

import (
	"context"
	"errors"
	"time"

	"github.com/stspub/stspub/internal/store"
)

// Authority is one certification authority. [ACME] is one. Its methods are called for many names at the same time, and
// return soon after their context ends.
type Authority interface {
	// Name is that of its [acme.NAME] table, and what [store.Certificate] calls it by.
	Name() string
	// Staging says that no sender trusts its certificates, so none of them may be announced by a TXT record.
	Staging() bool
	// Obtain makes one order for one name and gets a new certificate with a fresh key, or returns why not. It may take
	// minutes. What the authority said wraps a [*Problem]; an error without one is about the way to the authority, or about
	// the store. A [*Taken] says that the order may count all the same. It does not look whether the order is within any
	// budget.
	Obtain(ctx context.Context, r Request) (store.Certificate, error)
	// Window asks when a certificate (DER) should be renewed (RFC 9773, Section 4). The error is [ErrNoRenewalInfo] where
	// the authority never says, and else that of a question to be asked again later.
	Window(ctx context.Context, leaf []byte) (Window, error)
}

// Request is what is ordered.
type Request struct {
	Name string // as an A-label in lower case, without trailing dot
	// Replaces is the certificate (DER, of the same authority) that the new one replaces, so that the authority does not
	// count the order against its limits (RFC 9773, Section 5). Nil: none. The error is [ErrNotReplaced] if the authority
	// does not take that, as it may when another order replaced that certificate already.
	Replaces []byte
}

// ErrNotReplaced says that an authority refused an order for what it replaces. Another one without that may be taken, and
// counts.
var ErrNotReplaced = errors.New("the authority does not take the order as a replacement")

// Taken is the error of an order that the authority took, or may have taken, before something went wrong: it may count
// against its limits.
type Taken struct{ Err error }

// Error is that of the order.
func (t *Taken) Error() string { return t.Err.Error() }

// Unwrap returns it.
func (t *Taken) Unwrap() error { return t.Err }

// Window is when an authority wants a certificate to be renewed: at a random time between Start and End, and at once if
// that is past, which announces that the certificate is about to be revoked.
type Window struct {
	Start, End  time.Time     // Start is before End
	Explanation string        // URL of a page that says why; mostly empty
	Retry       time.Duration // ask again after; 1 minute to 1 day
}

// ErrNoRenewalInfo says that an authority has no renewal information.
var ErrNoRenewalInfo = errors.New("the authority has no renewal information")
