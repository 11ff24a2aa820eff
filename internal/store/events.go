package store

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
)

// Kinds of events: changes that somebody made. Before and After are what is declared, without secrets.
const (
	KindDomainAdded    = "domain.added"    // also one whose claim was proven
	KindDomainChanged  = "domain.changed"  // what is wanted of it
	KindDomainRemoved  = "domain.removed"  // it drains from now on
	KindDomainRestored = "domain.restored" // it drained, and is wanted again
	KindDomainMoved    = "domain.moved"    // from one tenant to another; both are told, and neither of the other
	KindDomainReleased = "domain.released" // another tenant may have it, or may not any more
	KindDomainCommand  = "domain.command"  // After says which: adopt, force, demote, expel or retry

	KindClaimMade      = "claim.made" // also one that wants something else now
	KindClaimWithdrawn = "claim.withdrawn"
	KindClaimExpired   = "claim.expired"

	KindMXSetAdded     = "mxset.added"
	KindMXSetChanged   = "mxset.changed"
	KindMXSetRemoved   = "mxset.removed"
	KindAccountAdded   = "account.added"
	KindAccountChanged = "account.changed" // its provider, or what nobody is shown
	KindAccountRemoved = "account.removed"

	// Events of the service, also those about tenants.
	KindTenantAdded   = "tenant.added"
	KindTenantChanged = "tenant.changed" // its limits
	KindTenantRemoved = "tenant.removed"
	KindNodeGone      = "node.gone"           // it stopped, or an operator said so
	KindConfiguration = "configuration.taken" // After has its digest
	KindHoldConfirmed = "hold.confirmed"      // drains and deletions were held; Before has the reason

	// Events of a tenant, or of the service where the token is.
	KindTokenAdded   = "token.added"
	KindTokenRevoked = "token.revoked"
)

// Kinds of events: states that were found. Each is one event, however often it is found.
const (
	KindDomainStep   = "domain.step"           // it reached, or fell back to, another step; After has the step
	KindDomainFault  = "domain.fault"          // something needs a human; After is the finding, here and in the next two
	KindDomainHeld   = "domain.promotion-held" // a fault of its own kind: a check keeps a roll-out from its end
	KindDomainMended = "domain.fault-cleared"  // it does not any more; Before is the finding
	KindPromoted     = "domain.promoted"       // its roll-out ended, by time or by an operator
	KindDomainGone   = "domain.drained"        // it is forgotten: its drain is over, or it was never announced
	KindIssued       = "certificate.issued"    // Name is the domain, or the host of the service
	KindFailing      = "certificate.failing"   // the first order in a row that failed for a fault of the name; Text has the CA's words

	KindServiceFault  = "service.fault"         // of the service as a whole; Name is the subject, After has the reason
	KindServiceMended = "service.fault-cleared" // Before has the reason
)

// Kinds returns all kinds of events, in the order of their names.
func Kinds() []string {
	all := []string{
		KindDomainAdded, KindDomainChanged, KindDomainRemoved, KindDomainRestored, KindDomainMoved, KindDomainReleased, KindDomainCommand,
		KindClaimMade, KindClaimWithdrawn, KindClaimExpired,
		KindMXSetAdded, KindMXSetChanged, KindMXSetRemoved, KindAccountAdded, KindAccountChanged, KindAccountRemoved,
		KindTenantAdded, KindTenantChanged, KindTenantRemoved, KindNodeGone, KindConfiguration, KindTokenAdded, KindTokenRevoked,
		KindWebhookAdded, KindWebhookChanged, KindWebhookRemoved,
		KindDomainStep, KindDomainFault, KindDomainHeld, KindDomainMended, KindPromoted, KindDomainGone, KindIssued, KindFailing,
		KindServiceFault, KindServiceMended, KindHoldConfirmed,
	}
	slices.Sort(all)
	return all
}

// CodePromotion is the code of the finding that a promotion is held or waits; as a fault it is a KindDomainHeld.
const CodePromotion = "promotion"

// Event is something that happened: a change that somebody made, or a state that was found. It is kept in the transaction
// of what it tells of, so there is none without that, nor that without it.
type Event struct {
	// Seq grows in the order in which events become visible: who has seen one has seen all with smaller ones.
	Seq    int64     `json:"seq" doc:"its number; later events have greater ones"`
	At     time.Time `json:"at"`
	Tenant string    `json:"tenant,omitempty" doc:"whose it is; without one, the service's own"`
	Kind   string    `json:"kind" doc:"what happened, for machines"`
	Name   string    `json:"name,omitempty" doc:"to what: the domain, MX set, account, tenant, token or node by its name"`
	Actor  string    `json:"actor" doc:"who did it: a token by id and label, socket, loopback, file, or stspub by itself"`
	Text   string    `json:"text" doc:"what happened, for people, in one line"`
	// Before and After are JSON objects; nil: nothing was, or is, there.
	Before json.RawMessage `json:"before,omitempty" doc:"what was declared or found before, without secrets"`
	After  json.RawMessage `json:"after,omitempty" doc:"and what is since"`
}

// EventFilter says which events are meant. What is empty does not count, but for Tenant.
type EventFilter struct {
	Tenant string // whose; empty: the service's own
	All    bool   // those of everybody; Tenant does not count then
	Name   string // with All, those of tenants that are there
	Kinds  []string
	Since  time.Time // At is not before this
}

// Audit is the part of a [Store] about what happened.
type Audit interface {
	// Events returns the events behind a number, oldest first, n at most. A tenant that came after another one of its name
	// was removed sees nothing of that one.
	Events(ctx context.Context, f EventFilter, after int64, n int) ([]Event, error)
	// AppendEvents keeps what has no transaction of its own. Seq is not read; an empty Actor is that of the context, and a
	// zero At is now.
	AppendEvents(ctx context.Context, events []Event) error
	// PruneEvents forgets events from before a time, of the n oldest, and returns how many those were, and what webhooks were
	// not told of before: it counts as lost there. Kinds are of the events that are sent to one that does not choose.
	PruneEvents(ctx context.Context, before time.Time, n int, kinds []string) (int, []Forgotten, error)
}

// Who does what nobody else said to do.
const (
	ActorSelf = "stspub"
	ActorFile = "file" // what the configuration file says at a start or by a signal
)

type actorKey struct{}

// WithActor has what is changed with a context be noted as somebody's doing; without it, it is [ActorSelf]'s. It and
// [WithReader] are all that the store takes from a context.
func WithActor(ctx context.Context, actor string) context.Context {
	return context.WithValue(ctx, actorKey{}, actor)
}

// actorOf must be asked before a transaction begins, for that may be in another context.
func actorOf(ctx context.Context) string {
	if actor, ok := ctx.Value(actorKey{}).(string); ok && actor != "" {
		return oneLine(actor)
	}
	return ActorSelf
}

const selectEvents = `SELECT seq, at, tenant, kind, name, actor, text, was, became FROM events WHERE `

func scanEvent(r row) (e Event, err error) {
	var was, became string
	err = r.Scan(&e.Seq, stamp{&e.At}, &e.Tenant, &e.Kind, &e.Name, &e.Actor, &e.Text, &was, &became)
	e.Before, e.After = rawJSON(was), rawJSON(became)
	return e, err
}

func rawJSON(text string) json.RawMessage {
	if text == "" {
		return nil
	}
	return json.RawMessage(text)
}

// queryEvents picks the index that leads to a page in the order of numbers.
func queryEvents(f EventFilter, after int64, n int) (query string, args []any) {
	arg := func(v any) string {
		args = append(args, v)
		return fmt.Sprintf("$%d", len(args))
	}
	query = selectEvents + `seq > ` + arg(after)
	switch {
	case !f.All:
		// Whatever is from before the tenant was added is of another one of that name.
		t := arg(f.Tenant)
		query += ` AND tenant = ` + t + ` AND seq > coalesce((SELECT max(a.seq) FROM events AS a
			WHERE a.tenant = '' AND a.name = ` + t + ` AND a.kind = '` + KindTenantAdded + `'), 0)`
	case f.Name != "":
		query += ` AND tenant IN (SELECT name FROM tenants UNION ALL SELECT '')`
	}
	if f.Name != "" {
		query += ` AND name = ` + arg(f.Name)
	}
	if len(f.Kinds) > 0 {
		query += ` AND CAST(` + arg(","+strings.Join(f.Kinds, ",")+",") + ` AS TEXT) LIKE '%,' || kind || ',%'`
	}
	if !f.Since.IsZero() {
		query += ` AND at >= ` + arg(micros(f.Since))
	}
	// SQLite looks at a bare LIMIT ? when it plans, and so would prepare the query again at each use.
	return query + ` ORDER BY seq LIMIT ` + arg(max(n, 0)) + ` + 0`, args
}

// Events implements [Store].
func (t *tables) Events(ctx context.Context, f EventFilter, after int64, n int) ([]Event, error) {
	if !f.Since.IsZero() {
		behind, err := t.longBefore(ctx, f.Since)
		if err != nil {
			return nil, err
		}
		after = max(after, behind)
	}
	query, args := queryEvents(f, after, n)
	return collect(ctx, t, "read events", scanEvent, query, args...)
}

// outOfOrder is by how much the time of an event may be before that of an earlier one: a declaration has one time, and may
// take minutes.
const outOfOrder = time.Hour

// longBefore returns a number behind which all events since a time are. Numbers and times grow together, so that it is found
// without an index of times.
func (t *tables) longBefore(ctx context.Context, since time.Time) (int64, error) {
	const doing = "read events"
	low, err := one(ctx, t, doing, scanNumber, `SELECT coalesce(min(seq), 0) FROM events`)
	if err != nil {
		return 0, err
	}
	high, err := one(ctx, t, doing, scanNumber, `SELECT coalesce(max(seq), 0) FROM events`)
	if err != nil {
		return 0, err
	}
	limit := since.Add(-outOfOrder)
	for low < high {
		middle := low + (high-low)/2
		next, err := collect(ctx, t, doing, scanEvent, selectEvents+`seq >= $1 ORDER BY seq LIMIT 1`, middle)
		switch {
		case err != nil:
			return 0, err
		case len(next) > 0 && next[0].At.Before(limit):
			low = next[0].Seq + 1
		default: // all from there on have been pruned since, or are late enough
			high = middle
		}
	}
	return low - 1, nil
}

// AppendEvents implements [Store].
func (t *tables) AppendEvents(ctx context.Context, events []Event) error {
	actor := actorOf(ctx)
	return t.db.writeSoon(ctx, "keep events", func(ctx context.Context, tx transaction) error {
		d := diary{actor: actor, events: slices.Clone(events)}
		return d.record(ctx, tx)
	})
}

// record keeps n events at the end of the transaction.
func record(ctx context.Context, tx transaction, n int, event func(i int) Event) error {
	if n == 0 {
		return nil
	}
	return tx.insertLast(ctx, "events", []string{"seq", "at", "tenant", "kind", "name", "actor", "text", "was", "became"}, n, func(i int) []any {
		e := event(i)
		return []any{micros(e.At), e.Tenant, e.Kind, e.Name, e.Actor, e.Text, string(e.Before), string(e.After)}
	})
}

// diary collects the events of one transaction. One that is made again begins with a new one.
type diary struct {
	actor  string
	at     time.Time // zero: by the database's clock
	events []Event
	err    error
}

// note enters an event. Before and after become JSON; nil: nothing.
func (d *diary) note(tenant, kind, name, text string, before, after any) {
	d.events = append(d.events, Event{
		At: d.at, Tenant: tenant, Kind: kind, Name: name, Actor: d.actor, Text: oneLine(text), Before: d.json(before), After: d.json(after),
	})
}

func (d *diary) json(v any) json.RawMessage {
	if v == nil {
		return nil
	}
	text, err := json.Marshal(v)
	if err != nil && d.err == nil {
		d.err = err
	}
	return text
}

// oneLine has no line of the log end in a text from outside.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}

// record keeps what was noted.
func (d *diary) record(ctx context.Context, tx transaction) error {
	if d.err != nil || len(d.events) == 0 {
		return d.err
	}
	if slices.ContainsFunc(d.events, func(e Event) bool { return e.At.IsZero() }) {
		at, err := tx.now(ctx)
		if err != nil {
			return err
		}
		d.at = fromMicros(at)
	}
	return record(ctx, tx, len(d.events), func(i int) Event {
		e := d.events[i]
		e.Actor = cmp.Or(e.Actor, d.actor)
		if e.At.IsZero() {
			e.At = d.at
		}
		return e
	})
}
