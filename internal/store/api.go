package store

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/stspub/stspub/internal/policygen"
)

// Errors about what the API declares.
var (
	// ErrTaken says that a domain belongs to another tenant.
	ErrTaken = errors.New("taken")
	// ErrMismatch says that something is not what the caller last saw; see [DomainChange].IfMatch.
	ErrMismatch = errors.New("changed since it was read")
	// ErrUnknownMXSet says that nobody declares the MX set.
	ErrUnknownMXSet = errors.New("no such mx set")
	// ErrUnknownAccount says that the API declares no such account, or none any more.
	ErrUnknownAccount = errors.New("no such account")
)

// matches says whether what is there, or not, with its ETag is what a caller expects, who may expect nothing.
func matches(ifMatch string, there bool, etag string) bool {
	return ifMatch == "" || there && (ifMatch == "*" || ifMatch == etag)
}

// OwnedError says that something is declared by another owner, where it is to be changed.
type OwnedError struct {
	What, Name string // "domain" or "mx set", and its name
	Owner      string // OwnerFile or OwnerAPI
}

// Error says where.
func (e *OwnedError) Error() string {
	if e.Owner == OwnerFile {
		return fmt.Sprintf("%s %q belongs to the configuration file: change it there", e.What, e.Name)
	}
	return fmt.Sprintf("%s %q belongs to owner %q: change it there", e.What, e.Name, e.Owner)
}

// InUseError says that an MX set or an account cannot go while domains need it.
type InUseError struct {
	What, Name string         // "mx set" or "account", and its name
	By         policygen.Name // one of the domains; empty: only domains that drain
	Draining   int            // how many of these, where By is empty
	Until      time.Time      // when the last of them has drained; zero: that is not known yet
}

// Error says who needs it, and until when.
func (e *InUseError) Error() string {
	switch {
	case e.By != "":
		return fmt.Sprintf("%s %q is needed by domain %q: move or remove its domains first", e.What, e.Name, e.By)
	case e.Until.IsZero():
		return fmt.Sprintf("%s %q is needed by %d domains that drain, until their records are gone", e.What, e.Name, e.Draining)
	}
	return fmt.Sprintf("%s %q is needed by %d domains that drain, until about %s", e.What, e.Name, e.Draining,
		e.Until.UTC().Format(time.DateTime+" MST"))
}

// ETag stands for what is declared of a domain, and whether it drains. What the reconciler remembers is no part of it.
func (d Domain) ETag() string {
	h := sha256.New()
	for _, part := range []string{
		string(d.Name), d.Tenant, d.MXSet, d.Publish, d.Account, d.Owner, fmt.Sprint(d.Adopt, !d.Removed.IsZero()), d.TLSRPT,
	} {
		fmt.Fprintf(h, "%d %s\n", len(part), part) // a hash takes everything
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// Batch are changes of domains by one owner, made in one transaction in their order.
type Batch struct {
	Owner   string
	Changes []DomainChange
	// Refuse, if set, says why a domain that is there, also as one that drains, cannot become what is wanted; nil: it can.
	// It is called within the transaction, perhaps more than once, and must not call the Store.
	Refuse func(have, want Domain) error
	// DryRun has everything decided and nothing written.
	DryRun bool
	// TooMany, if set, says whether so many removals of so many domains look like a mistake. What the tenant removed within
	// [RemovalPeriod] counts, on all nodes together, but what was removed without TooMany; and at least what Removed says that
	// the same request did before. If they do, nothing is changed, and the error is a [*MassRemovalError]. It is called as
	// Refuse is, and with 0 domains where their number was not looked at.
	TooMany func(removed, owned int) bool
	Removed int
	// Part, if set, is the part of a request that the batch is, which may have no changes; it is kept in the transaction.
	// Removed is what earlier parts removed. One that is there already is ErrExists, and nothing is done.
	Part *RequestPart
	// Answers, with Part, returns what is kept as its Answers. It is called as Refuse is.
	Answers func(outcomes []DomainOutcome) ([]byte, error)
}

// DomainChange is what one domain is to become.
type DomainChange struct {
	// Domain is what is wanted; the fields that a [Declaration] reads count, and for a removal only Name and Tenant.
	Domain Domain
	// Remove lets the domain drain, or takes back the claim to it.
	Remove bool
	// IfMatch, if not empty, is the ETag that the domain must have, or "*": it has to be there.
	IfMatch string
	// OwnAccount says that the account of Domain is one that the API declares. One that is gone is ErrUnknownAccount.
	OwnAccount bool
	// Shared is the shared record of the MX set, for a domain with publish shared. It is declared with the first one.
	Shared *Domain
	// Claim, if set, has a domain that is not the tenant's become a claim; Token, Created, Expires and Due count. A claim
	// that is there keeps its own.
	Claim *DomainClaim
	// Proven says that the tenant has proven the claim for Domain. It becomes a domain, and the claim ends. Another tenant's
	// domain is taken over if it drains or is released, else the error is ErrTaken. A claim that is not there any more, or
	// wants something else by now, is ErrStale.
	Proven bool
}

// Result is what became of a [DomainChange].
type Result string

// The results.
const (
	ResultAdded     Result = "added"
	ResultChanged   Result = "changed"
	ResultRestored  Result = "restored" // it drained
	ResultRemoved   Result = "removed"  // it drains
	ResultUnchanged Result = "unchanged"
	ResultMoved     Result = "moved"     // it was another tenant's
	ResultClaimed   Result = "claimed"   // the claim is new, or wants something else now
	ResultWithdrawn Result = "withdrawn" // the claim is taken back
)

// DomainOutcome is what became of one [DomainChange].
type DomainOutcome struct {
	Result Result // empty with Err
	ETag   string // of the domain as it is then; empty for a claim, and with Err
	// Err is why nothing was changed: an [*OwnedError], or wraps ErrTaken, ErrMismatch, ErrUnknownMXSet, ErrUnknownAccount, ErrNotFound
	// (only for removals), ErrStale (only with Proven), or what [Batch].Refuse said.
	Err error
}

// DomainClaim is a domain that a tenant wants and has not proven to be his. It is not served.
type DomainClaim struct {
	Domain  Domain // what is wanted, as declared
	Token   string // what proves the claim as a TXT value
	Created time.Time
	Expires time.Time
	Due     time.Time // when it is looked at next
	Looked  time.Time // last; zero: never
	Looks   int
	Reason  string // why it is not proven
}

// Account is a DNS account that the API declared.
type Account struct {
	Tenant, Name string
	Provider     string
	Settings     []byte // with the credentials; sealed in the store
	// Version is its ETag: hex digits at random, which tell nothing of Settings, and others each time that it is put.
	Version string
	// Err says why the settings cannot be opened, which are missing then. Only read.
	Err error
}

// Resealed is what [Store].Reseal did.
type Resealed struct {
	Rows    int      // sealed anew
	Damaged int      // left as they are, for no key opens them
	Dropped []string // ids of keys that the store needs no more; "" stands for what was not sealed
	Used    []string // ids of older keys that some node still seals with
}

// StepNew stands for the step of a domain that nobody looked at yet in a [DomainFilter].
const StepNew = "new"

// DomainFilter says which domains of a tenant are meant. What is empty does not count.
type DomainFilter struct {
	MXSet  string
	Step   string // as in State.Step, or StepNew
	Fault  bool   // only those with a fault
	Prefix string // of the name
}

// situation is what is stored about the domain of a [DomainChange].
type situation struct {
	have     *Domain // nil: nothing
	adopt    bool    // as declared; Domain.Adopt is also written by Save
	released bool
	claim    *DomainClaim // of the tenant that asks; nil: none
	known    bool         // the MX set that is wanted is declared
	account  bool         // the account is, if it has to be
}

// action is what is to be written about a domain.
type action int

const (
	actNothing action = iota
	actInsert
	actUpdate
	actRemove
	actClaim
	actWithdraw
)

// decision is what becomes of a [DomainChange]: it is the same in every engine. next is the domain as it is to be written.
type decision struct {
	action  action
	next    Domain
	settles bool // the tenant's claim ends
	outcome DomainOutcome
}

// decide says what becomes of a change.
func (b *Batch) decide(c DomainChange, at situation) decision {
	mine := at.have != nil && at.have.Tenant == c.Domain.Tenant
	if err := b.objects(c, at, mine); err != nil {
		return decision{outcome: DomainOutcome{Err: err}}
	}
	switch {
	case c.Remove && mine:
		return remove(*at.have)
	case c.Remove && at.claim != nil:
		return decision{action: actWithdraw, outcome: DomainOutcome{Result: ResultWithdrawn}}
	case c.Remove:
		return decision{outcome: DomainOutcome{Err: ErrNotFound}}
	case !mine && c.Claim != nil:
		if at.claim != nil && sameWish(at.claim.Domain, c.Domain) {
			return decision{outcome: DomainOutcome{Result: ResultUnchanged}}
		}
		return decision{action: actClaim, outcome: DomainOutcome{Result: ResultClaimed}}
	case at.have == nil:
		next := c.Domain
		next.Owner = b.Owner
		return decision{actInsert, next, c.Proven, DomainOutcome{Result: ResultAdded, ETag: next.ETag()}}
	}
	return b.update(c, at, mine)
}

// objects says what is against a change, but for what [Batch].Refuse says. Of another tenant's domain it tells nothing.
func (b *Batch) objects(c DomainChange, at situation, mine bool) error {
	switch {
	case c.Proven && (at.claim == nil || !sameWish(at.claim.Domain, c.Domain)):
		return ErrStale
	case c.IfMatch != "" && !mine, mine && c.IfMatch != "" && c.IfMatch != "*" && c.IfMatch != at.have.ETag():
		return ErrMismatch
	case mine && at.have.Owner != b.Owner && at.have.Removed.IsZero():
		return &OwnedError{What: "domain", Name: string(at.have.Name), Owner: at.have.Owner}
	case !c.Remove && !at.known:
		return fmt.Errorf("mx set %q: %w", c.Domain.MXSet, ErrUnknownMXSet)
	case !c.Remove && c.OwnAccount && !at.account:
		return fmt.Errorf("account %q: %w", c.Domain.Account, ErrUnknownAccount)
	case at.have == nil || mine || c.Remove || c.Claim != nil:
		return nil
	case !c.Proven || at.have.Removed.IsZero() && !at.released:
		return ErrTaken
	}
	return nil
}

func remove(have Domain) decision {
	if !have.Removed.IsZero() {
		return decision{outcome: DomainOutcome{Result: ResultUnchanged, ETag: have.ETag()}}
	}
	have.Removed = time.Unix(0, 0) // for the ETag; the transaction has its own time
	return decision{action: actRemove, outcome: DomainOutcome{Result: ResultRemoved, ETag: have.ETag()}}
}

// update is for a domain that is there, and may be changed.
func (b *Batch) update(c DomainChange, at situation, mine bool) decision {
	next := c.Domain
	next.Owner = b.Owner
	if at.have.Removed.IsZero() && mine && at.adopt == next.Adopt { // what an operator said by Save stays
		next.Adopt = at.have.Adopt
	}
	as := *at.have
	as.Adopt = at.adopt
	d := decision{actUpdate, next, c.Proven, DomainOutcome{Result: ResultChanged, ETag: next.ETag()}}
	switch {
	case !mine:
		d.outcome.Result = ResultMoved
	case !at.have.Removed.IsZero():
		d.outcome.Result = ResultRestored
	case !differs(as, c.Domain):
		d.action, d.outcome.Result = actNothing, ResultUnchanged
		return d
	}
	if b.Refuse == nil {
		return d
	}
	if err := b.Refuse(*at.have, next); err != nil {
		if !mine { // its words are of another tenant's domain
			err = ErrTaken
		}
		return decision{outcome: DomainOutcome{Err: err}}
	}
	return d
}

// sameWish says whether two wishes for one domain are the same.
func sameWish(a, b Domain) bool { return a.Name == b.Name && !differs(a, b) }
