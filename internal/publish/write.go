package publish

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/stspub/stspub/internal/dnsupdate"
	"github.com/stspub/stspub/internal/store"
)

// write does what was decided at the account that holds the record.
func (r *Reconciler) write(ctx context.Context, set *settings, d store.Domain, zone string, dec Decision) error {
	account, ok := set.account(d)
	if !ok {
		return fmt.Errorf("write the record of %s: account %q is not configured; put it back", d.Name, d.Account)
	}
	leave, err := r.enter(ctx, set.accountKey(d))
	if err != nil {
		return err
	}
	defer leave()
	ctx, cancel := context.WithTimeout(ctx, writeTime)
	defer cancel()
	if err := r.cfg.Store.CountWrite(ctx, d.Tenant, !dec.Limited, r.now()); err != nil {
		return err
	}
	record := RecordName(set.conf.Alias.Zone, d)
	err = account.Apply(ctx, dnsupdate.Change{
		Zone: zone, Name: record, TTL: set.conf.Publish.TTL, Remove: dec.Remove, Add: dec.Add,
	})
	if err != nil {
		return err
	}
	if dec.Do == DoWrite {
		r.tell(d.Name, StepTXT, fmt.Sprintf("wrote %s TXT %q at account %s", record, dec.Add, d.Account))
	}
	message := "wrote record"
	if dec.Do == DoDelete {
		message = "deleted record"
	}
	r.cfg.Log.Info(message, "domain", d.Name, "record", record, "add", dec.Add, "remove", dec.Remove)
	return nil
}

// errBusy says that an account has enough to do. Who waited for it would keep others from working.
var errBusy = errors.New("the account is busy with other records")

const (
	places  = workers * 3 / 5 // writes under way at one account: three quarters of what its tenant may have at most
	lap     = 100             // writes that an account is timed by
	lapTime = time.Second     // who makes them in this time is worth waiting for, for as long
)

// door lets the writes of an account in, so many at a time.
type door struct {
	places chan struct{} // one for each write under way
	done   int           // writes of this lap
	began  time.Time     // when it did
	took   time.Duration // the lap before
}

// quick says that a place is free soon.
func (d *door) quick(now time.Time) bool {
	return d.took > 0 && d.took < lapTime && now.Sub(d.began) < lapTime
}

// enter takes a place at an account until leave is called. All may be taken: then it waits for an account that is quick,
// since to look again later costs more, and for no other.
func (r *Reconciler) enter(ctx context.Context, account key) (leave func(), err error) {
	r.mu.Lock()
	d := r.doors[account]
	if d == nil {
		d = &door{places: make(chan struct{}, places), began: time.Now()}
		r.doors[account] = d
	}
	quick := d.quick(time.Now())
	r.mu.Unlock()
	select {
	case d.places <- struct{}{}:
		return func() { r.leave(d) }, nil
	default:
	}
	if !quick {
		return nil, errBusy
	}
	timer := time.NewTimer(lapTime)
	defer timer.Stop()
	select {
	case d.places <- struct{}{}:
		return func() { r.leave(d) }, nil
	case <-timer.C:
		return nil, errBusy
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (r *Reconciler) leave(d *door) {
	<-d.places
	r.mu.Lock()
	defer r.mu.Unlock()
	if d.done++; d.done >= lap {
		now := time.Now()
		d.done, d.took, d.began = 0, now.Sub(d.began), now
	}
}

// refused ends a pass whose write did not succeed. Whether it landed all the same is seen in the next pass.
//
// first says that no write was tried before.
func (r *Reconciler) refused(ctx context.Context, set *settings, d *store.Domain, dec Decision, first bool, err error) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return err
	}
	step := StepTXT
	switch {
	case dec.Do == DoDelete && d.Removed.IsZero():
		step = StepAttach
	case dec.Do == DoDelete:
		step = StepDrain
	}
	p := pass{s: d.State, now: r.now()}
	end := *p.wait(step, r.refusal(set, d, err), false, 0)
	end.State.Failures++
	end.After = min(rewriteAfter<<min(end.State.Failures-1, 10), writeRetryCap)
	var failed *dnsupdate.Error
	if errors.As(err, &failed) {
		if failed.Op == "read" || needsHuman(failed.Kind) {
			// Nothing was written, so whoever mends it need not wait.
			end.State.Wrote, end.After = time.Time{}, pause(step, end.State.Failures)
			if first {
				end.State.Zone = "" // nor before: the domain is free to be published in another way
			}
		}
		end.State.Fault = needsHuman(failed.Kind)
		end.After = max(end.After, failed.RetryAfter)
	}
	end.State.Fault = end.State.Fault || p.now.Sub(end.State.Since) > writeFault
	if errors.Is(err, dnsupdate.ErrConflict) || errors.Is(err, errBusy) { // nothing was written; look again and decide again
		end.State.Wrote, end.After = time.Time{}, pause(step, end.State.Failures)
	}
	if errors.Is(err, store.ErrSpent) { // others took what was left; the next pass says when it is the record's turn
		end.State.Intended, end.State.Wrote, end.After = "", time.Time{}, time.Second
		if first {
			end.State.Zone = ""
		}
	}
	if end.State.Findings = nil; end.State.Fault {
		end.State.Findings = []store.Finding{{Code: step, Fault: true, Since: p.now, Text: end.State.Reason}}
	}
	if d.State.Expelled && end.State.Fault {
		r.cfg.Log.Warn("a record is left behind", "domain", d.Name, "record", d.State.Record, "err", err)
		return r.forget(ctx, *d)
	}
	return r.rest(ctx, set, Want{Name: d.Name}, d, end)
}

// needsHuman tells what only a human can mend from what passes.
func needsHuman(k dnsupdate.Kind) bool {
	switch k {
	case dnsupdate.KindRateLimited, dnsupdate.KindUnavailable, dnsupdate.KindConflict, dnsupdate.KindDryRun:
		return false
	}
	return true
}
