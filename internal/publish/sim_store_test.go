package publish

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

// memStore is what the reconciler needs of a [store.Store], in memory, with the transactions of the real one: a world of
// the simulation saves thousands of times, and copies the store to put it back later.
type memStore struct {
	store.Store // whatever else is called panics

	rows    map[policygen.Name]memRow
	sets    map[string]policygen.Policy
	history map[policygen.Name][]store.Served
	ids     []memID // oldest first
	values  map[string][]byte
	version int64
}

type memRow struct {
	store.Domain
	claimed bool
	woken   bool
}

type memID struct {
	store.WrittenID
	record string
}

func newMemStore() *memStore {
	return &memStore{
		rows: make(map[policygen.Name]memRow), sets: make(map[string]policygen.Policy),
		history: make(map[policygen.Name][]store.Served), values: make(map[string][]byte),
	}
}

// clone is a backup.
func (m *memStore) clone() *memStore {
	c := *m
	c.rows, c.sets, c.ids, c.values = maps.Clone(m.rows), maps.Clone(m.sets), slices.Clone(m.ids), maps.Clone(m.values)
	c.history = make(map[policygen.Name][]store.Served, len(m.history))
	for name, h := range m.history {
		c.history[name] = slices.Clone(h)
	}
	return &c
}

// LastChange is that of a store in which nobody else changes anything.
func (m *memStore) LastChange(context.Context) (int64, error) { return 0, nil }

// CountWrite and WriteQuota are those of tenants without limits.
func (m *memStore) CountWrite(context.Context, string, bool, time.Time) error { return nil }

func (m *memStore) WriteQuota(context.Context, string, time.Time) (store.WriteQuota, error) {
	return store.WriteQuota{}, nil
}

func (m *memStore) next() int64 {
	m.version++
	return m.version
}

func (m *memStore) Declare(_ context.Context, d store.Declaration, now time.Time) (store.Change, error) {
	var done store.Change
	changed := make(map[string]bool)
	for _, set := range d.MXSets {
		old, there := m.sets[set.Name]
		changed[set.Name] = there && old.Text() != set.Policy.Text()
		m.sets[set.Name] = set.Policy
	}
	declared := make(map[policygen.Name]bool)
	version := m.next()
	for _, want := range d.Domains {
		declared[want.Name] = true
		r, there := m.rows[want.Name]
		restored, differs := there && !r.Removed.IsZero(), there && r.MXSet != want.MXSet
		switch {
		case !there:
			r = memRow{Domain: want}
			r.Added = now
			done.Added++
		case restored:
			done.Restored++
		case differs, changed[r.MXSet]:
			done.Changed++
		default:
			continue
		}
		r.MXSet, r.Removed, r.Due, r.Version, r.claimed, r.woken = want.MXSet, time.Time{}, now, version, false, false
		m.rows[want.Name] = r
	}
	for name, r := range m.rows {
		if declared[name] || !r.Removed.IsZero() {
			continue
		}
		done.Removed++
		r.Removed, r.Due, r.Version, r.claimed, r.woken = now, now, version, false, false
		m.rows[name] = r
	}
	return done, nil
}

// The simulation has nothing that the API declares.

func (m *memStore) MXSets(context.Context) ([]store.MXSet, error) { return nil, nil }

func (m *memStore) Accounts(context.Context) ([]store.Account, error) { return nil, nil }

func (m *memStore) Domain(_ context.Context, name policygen.Name) (store.Domain, error) {
	r, there := m.rows[name]
	if !there {
		return store.Domain{}, fmt.Errorf("read domain %q: %w", name, store.ErrNotFound)
	}
	return r.Domain, nil
}

func (m *memStore) EachServed(_ context.Context, f func(name, text []byte) error) error {
	for name, r := range m.rows {
		if r.State.Served != "" && r.Publish != store.PublishWildcard {
			if err := f([]byte(name), []byte(r.State.Served)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *memStore) EachDomain(_ context.Context, f func(store.Domain) error) error {
	for _, name := range slices.Sorted(maps.Keys(m.rows)) {
		if err := f(m.rows[name].Domain); err != nil {
			return err
		}
	}
	return nil
}

func (m *memStore) EachShared(ctx context.Context, tenant, mxset string, f func(store.Domain) error) error {
	return m.EachDomain(ctx, func(d store.Domain) error {
		if d.Tenant != tenant || d.MXSet != mxset || d.Publish != store.PublishShared {
			return nil
		}
		return f(d)
	})
}

func (m *memStore) Claim(_ context.Context, now time.Time, lease time.Duration, _ int, _ ...string) ([]store.Domain, error) {
	var first policygen.Name
	var due time.Time
	for name, r := range m.rows {
		if !r.Due.After(now) && (first == "" || r.Due.Before(due) || r.Due.Equal(due) && name < first) {
			first, due = name, r.Due
		}
	}
	if first == "" {
		return nil, nil
	}
	d := m.rows[first].Domain
	d.Due, d.Version = now.Add(lease), m.next()
	m.rows[first] = memRow{Domain: d, claimed: true}
	return []store.Domain{d}, nil
}

func (m *memStore) NextDue(context.Context, ...string) (time.Time, error) {
	var next time.Time
	for _, r := range m.rows {
		if next.IsZero() || r.Due.Before(next) {
			next = r.Due
		}
	}
	if next.IsZero() {
		return next, store.ErrNotFound
	}
	return next, nil
}

func (m *memStore) Wake(_ context.Context, name policygen.Name, now time.Time) error {
	if _, there := m.rows[name]; name != "" && !there {
		return store.ErrNotFound
	}
	for n, r := range m.rows {
		if name != "" && name != n || !r.Due.After(now) {
			continue
		}
		if r.claimed {
			r.woken = true
		} else {
			r.Due = now
		}
		m.rows[n] = r
	}
	return nil
}

func (m *memStore) Save(_ context.Context, d *store.Domain, now time.Time) error {
	old, there := m.rows[d.Name]
	switch {
	case !there:
		return fmt.Errorf("save %q: %w: %w", d.Name, store.ErrStale, store.ErrNotFound)
	case old.Version != d.Version:
		return fmt.Errorf("save %q: %w", d.Name, store.ErrStale)
	case d.Publish == store.PublishShared && d.State.Detached.IsZero() && d.State.Served != "" && !m.sameAsShared(*d):
		return fmt.Errorf("save %q: the shared record has another policy: %w", d.Name, store.ErrStale)
	case d.State.Intended != "" && d.State.Intended != old.State.Intended && slices.ContainsFunc(m.ids, func(i memID) bool { return i.ID == d.State.Intended }):
		return fmt.Errorf("save %q: %w", d.Name, store.ErrIDReused)
	}
	saved := old
	saved.State, saved.Adopt, saved.Version = d.State, d.Adopt, m.next()
	if !old.claimed || !old.Due.Equal(d.Due) {
		saved.Due, saved.claimed, saved.woken = d.Due, false, false
		if old.woken && now.Before(d.Due) {
			saved.Due = now
		}
	}
	m.rows[d.Name] = saved
	if d.Publish == store.PublishWildcard && d.State.Served != old.State.Served {
		m.turn(saved.Domain, now)
	}
	m.keepBooks(old.State, saved.Domain, now)
	d.Version, d.Due = saved.Version, saved.Due
	return nil
}

func (m *memStore) sameAsShared(d store.Domain) bool {
	for _, r := range m.rows {
		if r.Publish == store.PublishWildcard && r.Tenant == d.Tenant && r.MXSet == d.MXSet {
			return r.State.Served == d.State.Served
		}
	}
	return false
}

// turn brings a shared record's text to all that are attached.
func (m *memStore) turn(record store.Domain, now time.Time) {
	for name, r := range m.rows {
		if r.Publish != store.PublishShared || r.Tenant != record.Tenant || r.MXSet != record.MXSet ||
			!r.State.Detached.IsZero() || r.State.Served == "" || !below(r.State.Record, string(record.Name)) {
			continue
		}
		m.turnPage(name, record.State.Served, now)
		r.State.Served, r.Version = record.State.Served, record.Version
		if r.State.Promoted.IsZero() {
			r.State.Promoted = record.State.Promoted
		}
		if r.claimed {
			r.Due = now
		}
		r.claimed, r.woken = false, false
		m.rows[name] = r
	}
}

func (m *memStore) turnPage(name policygen.Name, text string, now time.Time) {
	h := m.history[name]
	for i := range h {
		if h[i].To.IsZero() {
			h[i].To = now
		}
	}
	if text != "" {
		h = append(h, store.Served{Text: text, From: now})
	}
	m.history[name] = h
}

func (m *memStore) keepBooks(old store.State, d store.Domain, now time.Time) {
	if d.State.Served != old.Served {
		m.turnPage(d.Name, d.State.Served, now)
	}
	if d.State.Intended != old.Intended && d.State.Intended != "" {
		m.ids = append(m.ids, memID{store.WrittenID{ID: d.State.Intended, Text: d.State.Served, Intended: now}, d.State.Record})
	}
	if d.State.ID == old.ID || d.State.ID == "" {
		return
	}
	for i := range m.ids {
		if m.ids[i].ID == d.State.ID && m.ids[i].Verified.IsZero() {
			m.ids[i].Verified = now
		}
	}
}

func (m *memStore) Delete(_ context.Context, d store.Domain) error {
	if old, there := m.rows[d.Name]; !there || old.Version != d.Version {
		return fmt.Errorf("delete %q: %w", d.Name, store.ErrStale)
	}
	delete(m.rows, d.Name)
	return nil
}

func (m *memStore) History(_ context.Context, name policygen.Name) ([]store.Served, error) {
	return slices.Clone(m.history[name]), nil
}

// AppendEvents forgets them.
func (m *memStore) AppendEvents(context.Context, []store.Event) error { return nil }

func (m *memStore) AddForeign(_ context.Context, name policygen.Name, text string, now time.Time) error {
	for i, h := range m.history[name] {
		if h.Foreign && h.Text == text {
			m.history[name][i].To = now
			return nil
		}
	}
	m.history[name] = append(m.history[name], store.Served{Text: text, Foreign: true, From: now, To: now})
	return nil
}

func (m *memStore) IDs(_ context.Context, record string) ([]store.WrittenID, error) {
	var ids []store.WrittenID
	for _, i := range slices.Backward(m.ids) {
		if i.record == record {
			ids = append(ids, i.WrittenID)
		}
	}
	return ids, nil
}

func (m *memStore) Value(_ context.Context, key string) ([]byte, error) {
	v, there := m.values[key]
	if !there {
		return nil, store.ErrNotFound
	}
	return bytes.Clone(v), nil
}

func (m *memStore) SetValue(_ context.Context, key string, value []byte) error {
	m.values[key] = bytes.Clone(value)
	return nil
}

func (m *memStore) DeleteValue(_ context.Context, key string) error {
	delete(m.values, key)
	return nil
}
