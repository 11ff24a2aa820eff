package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/stspub/stspub/internal/policygen"
)

// errDryRun rolls back what was tried.
var errDryRun = errors.New("dry run")

// ApplyDomains implements [Store].
func (t *tables) ApplyDomains(ctx context.Context, b Batch, now time.Time) ([]DomainOutcome, error) {
	if b.Owner == "" {
		return nil, errors.New("apply changes of domains: they need an owner")
	}
	if len(b.Changes) == 0 && (b.Part == nil || b.DryRun) {
		return nil, nil
	}
	var outcomes []DomainOutcome
	actor := actorOf(ctx)
	doing := fmt.Sprintf("apply %d changes of domains", len(b.Changes))
	apply := func(ctx context.Context, tx transaction) error {
		if err := tx.lock(ctx, lockDeclaration, "", false); err != nil {
			return err
		}
		w := batchWriter{
			b: &b, tx: tx, at: micros(now), known: make(map[setKey]bool), left: make(map[setKey]bool), room: make(map[string]int),
			accounts: make(map[setKey]bool), told: diary{actor: actor, at: now},
		}
		outcomes = outcomes[:0]
		for _, c := range b.Changes {
			outcome, err := w.change(ctx, c)
			if err != nil {
				return err
			}
			outcomes = append(outcomes, outcome)
		}
		if err := w.endShared(ctx); err != nil {
			return err
		}
		if err := w.countRemovals(ctx, outcomes, now); err != nil {
			return err
		}
		if b.DryRun {
			return errDryRun
		}
		if err := b.keepPart(ctx, tx, outcomes, now); err != nil {
			return err
		}
		return w.told.record(ctx, tx)
	}
	leave, err := t.db.queueUp(ctx, b.tenant())
	if err != nil {
		return nil, said(doing, err)
	}
	defer leave()
	if len(b.Changes) == 1 && !b.DryRun { // those of many callers share a commit
		err = t.db.writeSoon(ctx, doing, apply)
	} else {
		err = t.db.write(ctx, doing, apply)
	}
	if err != nil && !errors.Is(err, errDryRun) {
		return nil, err
	}
	return outcomes, nil
}

// tenant is who waits for the others with the batch.
func (b *Batch) tenant() string {
	if b.Part != nil {
		return b.Part.Tenant
	}
	return b.Changes[0].Domain.Tenant
}

// batchWriter makes the changes of a batch within a transaction.
type batchWriter struct {
	b       *Batch
	tx      transaction
	at      int64 // now
	version int64
	known   map[setKey]bool // MX sets that were looked for
	left    map[setKey]bool // MX sets whose shared record lost a domain
	room    map[string]int  // how many more domains a tenant may have
	told    diary

	accounts map[setKey]bool // that were looked for
}

func (w *batchWriter) change(ctx context.Context, c DomainChange) (DomainOutcome, error) {
	at, err := w.situation(ctx, c)
	if err != nil {
		return DomainOutcome{}, err
	}
	d := w.b.decide(c, at)
	if d.action == actInsert && !c.Proven || d.action == actClaim && at.claim == nil { // what is proven was counted as a claim
		if full, err := w.takeRoom(ctx, c.Domain.Tenant); err != nil || full {
			return DomainOutcome{Err: ErrLimit}, err
		}
	}
	if d.action == actUpdate || d.action == actRemove {
		if at.have.Publish == PublishShared && at.have.Removed.IsZero() {
			w.left[setKey{at.have.Tenant, at.have.MXSet}] = true
		}
	}
	switch d.action {
	case actInsert:
		err = w.insert(ctx, d.next)
	case actUpdate:
		err = w.update(ctx, d.next, c.Domain.Adopt, d.outcome.Result == ResultMoved)
	case actRemove:
		err = w.remove(ctx, *at.have)
	case actClaim:
		err = putClaim(ctx, w.tx, c)
	}
	if err == nil && (d.action == actWithdraw || d.settles) {
		_, err = w.tx.exec(ctx, `DELETE FROM claims WHERE tenant = $1 AND name = $2`, c.Domain.Tenant, c.Domain.Name)
	}
	if err == nil && (d.action == actInsert || d.action == actUpdate) && c.Shared != nil && d.next.Publish == PublishShared {
		err = w.share(ctx, *c.Shared)
	}
	if d.action != actNothing {
		w.told.changed(c, at, d)
	}
	return d.outcome, err
}

// situation reads what is stored about a domain.
func (w *batchWriter) situation(ctx context.Context, c DomainChange) (situation, error) {
	var at situation
	err := w.tx.query(ctx, func(r row) error {
		have, err := scanDomain(longer{r, []any{&at.adopt, &at.released}})
		at.have = &have
		return err
	}, w.tx.locking(querySituation, "FOR UPDATE"), c.Domain.Name, c.Domain.Tenant, c.Proven)
	if err == nil && at.have == nil {
		err = w.lookAway(ctx, &at, c.Domain.Name)
	}
	if err != nil {
		return at, err
	}
	if at.have == nil || at.have.Tenant != c.Domain.Tenant || c.Proven {
		err := w.tx.query(ctx, func(r row) error {
			claim, err := scanClaim(r)
			at.claim = &claim
			return err
		}, queryClaimOf, c.Domain.Tenant, c.Domain.Name)
		if err != nil {
			return at, err
		}
	}
	if c.OwnAccount && !c.Remove {
		if at.account, err = w.holds(ctx, setKey{c.Domain.Tenant, c.Domain.Account}); err != nil {
			return at, err
		}
	}
	at.known, err = w.knows(ctx, setKey{c.Domain.Tenant, c.Domain.MXSet})
	return at, err
}

// holds says whether an account is there, and keeps it there until the transaction ends.
func (w *batchWriter) holds(ctx context.Context, account setKey) (bool, error) {
	held, looked := w.accounts[account]
	if looked {
		return held, nil
	}
	var name string
	err := w.tx.get(ctx, w.tx.locking(`SELECT name FROM accounts WHERE tenant = $1 AND name = $2`, "FOR KEY SHARE"),
		[]any{account.tenant, account.name}, &name)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return false, err
	}
	w.accounts[account] = err == nil
	return err == nil, nil
}

// querySituation finds what a change may change. A lock is a write, and waits for other writes: of another tenant's domain it
// would tell by its time.
const querySituation = `SELECT ` + domainColumns + `, declared_adopt, released FROM domains
	WHERE name = $1 AND (tenant = $2 OR CAST($3 AS BOOLEAN))`

// lookAway notes that a domain is another tenant's, and nothing else of it.
func (w *batchWriter) lookAway(ctx context.Context, at *situation, name policygen.Name) error {
	var taken bool
	err := w.tx.get(ctx, `SELECT EXISTS (SELECT 1 FROM domains WHERE name = $1)`, []any{name}, &taken)
	if taken {
		at.have = &Domain{Name: name}
	}
	return err
}

// longer is a row with more columns than its scanner knows.
type longer struct {
	row
	more []any
}

// Scan implements row.
func (l longer) Scan(dest ...any) error { return l.row.Scan(append(dest, l.more...)...) }

// knows says whether somebody declares an MX set.
func (w *batchWriter) knows(ctx context.Context, set setKey) (bool, error) {
	known, looked := w.known[set]
	if looked {
		return known, nil
	}
	err := w.tx.get(ctx, `SELECT EXISTS (SELECT 1 FROM mxsets WHERE tenant = $1 AND name = $2 AND owner <> '')`,
		[]any{set.tenant, set.name}, &known)
	w.known[set] = known
	return known, err
}

// next numbers the changes of the batch; all have one number.
func (w *batchWriter) next(ctx context.Context) (err error) {
	if w.version == 0 {
		w.version, err = w.tx.nextVersion(ctx)
	}
	return err
}

func (w *batchWriter) insert(ctx context.Context, d Domain) error {
	if err := w.next(ctx); err != nil {
		return err
	}
	_, err := w.tx.exec(ctx, `INSERT INTO domains
		(name, tenant, mxset, publish, account, owner, adopt, declared_adopt, tlsrpt, added, due, version)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`,
		d.Name, d.Tenant, d.MXSet, d.Publish, d.Account, d.Owner, d.Adopt, d.Adopt, d.TLSRPT, w.at, w.at, w.version)
	return err
}

// update writes what is declared; d.Adopt may be what an operator said since.
func (w *batchWriter) update(ctx context.Context, d Domain, adopt, moved bool) error {
	if err := w.next(ctx); err != nil {
		return err
	}
	_, err := w.tx.exec(ctx, `UPDATE domains SET tenant = $1, mxset = $2, publish = $3, account = $4, owner = $5, adopt = $6,
		declared_adopt = $7, tlsrpt = $8, removed = 0, due = $9, claimed = 0, woken = FALSE, version = $10 WHERE name = $11`,
		d.Tenant, d.MXSet, d.Publish, d.Account, d.Owner, d.Adopt, adopt, d.TLSRPT, w.at, w.version, d.Name)
	if err == nil && moved { // what the tenant before decided and was told does not count for this one
		_, err = w.tx.exec(ctx, `UPDATE domains SET released = FALSE, staged = 0, promoted = 0, pinned = FALSE, expelled = FALSE, forced = '',
			findings = '', reason = '', fault = FALSE, added = $1 WHERE name = $2`, w.at, d.Name)
	}
	return err
}

func (w *batchWriter) remove(ctx context.Context, d Domain) error {
	if err := w.next(ctx); err != nil {
		return err
	}
	_, err := w.tx.exec(ctx, `UPDATE domains SET removed = $1, due = $2, claimed = 0, woken = FALSE, version = $3 WHERE name = $4`,
		w.at, w.at, w.version, d.Name)
	return err
}

// share sees to it that a shared record is there and does not drain.
func (w *batchWriter) share(ctx context.Context, d Domain) error {
	var removed int64
	err := w.tx.get(ctx, `SELECT removed FROM domains WHERE name = $1`, []any{d.Name}, &removed)
	switch {
	case errors.Is(err, ErrNotFound):
		d.Owner, d.Publish = w.b.Owner, PublishWildcard
		return w.insert(ctx, d)
	case err != nil || removed == 0:
		return err
	}
	if err := w.next(ctx); err != nil {
		return err
	}
	_, err = w.tx.exec(ctx, `UPDATE domains SET removed = 0, due = $1, claimed = 0, woken = FALSE, version = $2 WHERE name = $3`,
		w.at, w.version, d.Name)
	return err
}

// querySharing says whether an MX set has a domain that shares its record and does not drain.
const querySharing = `SELECT EXISTS (SELECT 1 FROM domains WHERE tenant = $1 AND mxset = $2 AND publish = 'shared' AND removed = 0)`

// endShared has the shared records drain that lost their last domain.
func (w *batchWriter) endShared(ctx context.Context) error {
	for set := range w.left {
		var sharing bool
		if err := w.tx.get(ctx, querySharing, []any{set.tenant, set.name}, &sharing); err != nil {
			return err
		}
		if sharing {
			continue
		}
		if err := w.next(ctx); err != nil {
			return err
		}
		if _, err := w.tx.exec(ctx, `UPDATE domains SET removed = $1, due = $2, claimed = 0, woken = FALSE, version = $3
			WHERE tenant = $4 AND mxset = $5 AND publish = 'wildcard' AND removed = 0`,
			w.at, w.at, w.version, set.tenant, set.name); err != nil {
			return err
		}
	}
	return nil
}
