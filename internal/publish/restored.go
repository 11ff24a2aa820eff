package publish

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

const (
	startTime   = 10 * time.Minute // the comparison at start is over then, whatever is still pending
	startSample = 100              // live domains compared at start
)

// startup is the comparison of DNS with the store after a start: many ids that the store does not know mean that it is
// an old copy, whose drains and deletions must not go on. Reconciler.mu guards it.
type startup struct {
	names    map[policygen.Name]bool // still to compare
	began    time.Time
	compared int
	sampled  int             // how many there were to compare
	tenants  int             // whose those are
	unknown  int             // how many of those compared have ids that the store does not know
	strange  map[string]bool // tenants of these
	old      bool            // the store was found to be an old copy
	// An id that the store does not know, and that was made after last and before until, was made after the store was copied:
	// one is enough.
	last, until time.Time       // the latest time that an earlier run kept, and the start; last is zero: not known
	newer       map[string]bool // tenants of records with such an id
	proven      bool            // one of these is in the alias zone, where nobody else writes
}

// sample picks live records at random to be compared, of every tenant as many: names that sort first, or are many, do not
// stand for all.
type sample struct{ of map[string]*tenantSample }

type tenantSample struct {
	seen  int
	names []policygen.Name
}

// add has a domain take part. A record that the customer writes says nothing about our store.
func (s *sample) add(d store.Domain) {
	if d.State.ID == "" || d.Publish == store.PublishManual {
		return
	}
	if s.of == nil {
		s.of = make(map[string]*tenantSample)
	}
	t := s.of[d.Tenant]
	if t == nil {
		t = new(tenantSample)
		s.of[d.Tenant] = t
	}
	t.seen++
	if room := s.each(); len(t.names) < room {
		t.names = append(t.names, d.Name)
	} else if at := rand.IntN(t.seen); at < room {
		t.names[at] = d.Name
	}
}

// each is how many records of one tenant are compared.
func (s *sample) each() int { return max(startSample/len(s.of), 2) }

// names are those that are to be compared, startSample at most.
func (s *sample) names() []policygen.Name {
	var all []policygen.Name
	for _, t := range s.of { // at random
		n := min(len(t.names), s.each(), startSample-len(all))
		all = append(all, t.names[:n]...)
	}
	return all
}

func (s *startup) done(name policygen.Name) { delete(s.names, name) }

func (s *startup) busy() bool { return len(s.names) > 0 && time.Since(s.began) < startTime }

// uncompared says that a domain is one of those that are compared after a start, and was not yet.
func (r *Reconciler) uncompared(name policygen.Name) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.start.names[name]
}

// restored says that one carries an id that was made since the store was copied, or at least two, and a tenth of those
// compared, ids that the store does not know. Where there are several tenants that is so at more than one, or with most of
// those compared, or in the alias zone: one may write what it likes into its zones.
func (s *startup) restored() bool {
	switch {
	case s.proven, len(s.newer) > 0 && s.tenants < 2, len(s.newer) > 1:
		return true
	case s.unknown < 2, s.unknown*10 < s.compared:
		return false
	}
	return s.tenants < 2 || len(s.strange) > 1 || s.unknown*2 > s.sampled
}

// found takes a record with ids that the store does not know into account: whether it is one of those compared, and whether
// such an id was made since the store was copied.
func (s *startup) found(d store.Domain, first, newer bool) {
	if first {
		s.unknown++
		s.strange[d.Tenant] = true
	}
	if newer {
		s.newer[d.Tenant] = true
		s.proven = s.proven || d.Publish != store.PublishZone
	}
}

// isNewer says that one of the values seen names an id that was made between the copy of the store and this start.
func (s *startup) isNewer(values []string) bool {
	return !s.last.IsZero() && slices.ContainsFunc(values, func(v string) bool {
		made := idTime(v)
		return made.After(s.last) && made.Before(s.until)
	})
}

// idTime is when the id of a record was made, by this server or another stspub; zero: it was not.
func idTime(value string) time.Time {
	id, err := policygen.ParseRecord(value)
	if err != nil {
		return time.Time{}
	}
	return policygen.IDTime(id)
}

func madeHere(value string) bool { return !idTime(value).IsZero() }

// compared takes a look at a record into account: the first one after a start, and any that shows an id which was made since
// the store was copied.
func (r *Reconciler) compared(ctx context.Context, d store.Domain, t *TXT) {
	if t.answered() == 0 {
		return
	}
	foreign := t.foreign()
	r.mu.Lock()
	s := &r.start
	first, newer := s.names[d.Name], announced(d) && s.isNewer(foreign)
	s.done(d.Name)
	if first {
		s.compared++
	}
	s.found(d, first && len(foreign) > 0 && d.State.ID != "", newer)
	news := !s.old && s.restored()
	s.old = s.old || news
	r.mu.Unlock()
	if !news {
		return
	}
	err := r.hold(ctx, fmt.Sprintf("DNS holds ids that the store does not know (%s has one): the store is an old copy, or "+
		"another server writes these records; when that is settled, confirm it: stspub plan prints the command", d.Name))
	if err != nil {
		r.cfg.Log.Error("deletions not held", "err", err)
	}
}

// announced says that senders may have been told of a record which is ours alone to write.
func announced(d store.Domain) bool {
	return d.Publish != store.PublishManual && (d.State.Zone != "" || d.State.ID != "")
}

// lookFor looks at what a decision asked for. What a record's lost ids stood for is kept as not known before anything is
// decided by it.
func (r *Reconciler) lookFor(ctx context.Context, set *settings, l Look, w Want, d *store.Domain, seen *Seen) (Want, error) {
	if err := r.look(ctx, l, w, d, Target(set.conf.Server.Hostname, d.Tenant), seen); err != nil {
		return w, err
	}
	if l != LookTXT || !announced(*d) || !slices.ContainsFunc(seen.TXT.foreign(), madeHere) {
		return w, nil
	}
	// Senders may hold a policy that this store does not know, for as long as RFC 8461 allows.
	if err := r.cfg.Store.AddForeign(ctx, d.Name, "", r.now()); err != nil {
		return w, fmt.Errorf("keep the history of %s: %w", d.Name, err)
	}
	return r.want(ctx, set, *d)
}

// historyOf returns what was served for a domain. To one that leaves, what may have been served under lost ids of the shared
// record belongs, from when the domain was there.
func (r *Reconciler) historyOf(ctx context.Context, w Want, d store.Domain) ([]store.Served, error) {
	history, err := r.cfg.Store.History(ctx, d.Name)
	if err == nil && w.Drain && d.Publish == store.PublishShared {
		var shared []store.Served
		shared, err = r.cfg.Store.History(ctx, policygen.Name(above(w.Record)))
		history = append(history, slices.DeleteFunc(shared, func(h store.Served) bool { return h.Text != "" || h.To.Before(d.Added) })...)
	}
	if err != nil {
		return nil, fmt.Errorf("read the history of %s: %w", d.Name, err)
	}
	return history, nil
}
