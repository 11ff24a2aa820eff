package certs_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"log/slog"
	"maps"
	"math/big"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/certs"
	"github.com/stspub/stspub/internal/store"
)

const day = 24 * time.Hour

// attempt is one order that a model issuer saw.
type attempt struct {
	name string
	at   time.Time
}

// one is what a Config takes.
func one(a certs.Authority) []certs.Authority { return []certs.Authority{a} }

// model is an Authority that does what answer says, and remembers when it was asked.
type model struct {
	answer  func(ctx context.Context, name string) (store.Certificate, error)
	called  string // its name; empty: "model"
	staging bool
	window  func(leaf []byte) (certs.Window, error) // nil: it has none

	mu       sync.Mutex
	attempts []attempt
}

func (m *model) Name() string {
	if m.called == "" {
		return "model"
	}
	return m.called
}

func (m *model) Staging() bool { return m.staging }

func (m *model) Window(_ context.Context, leaf []byte) (certs.Window, error) {
	if m.window == nil {
		return certs.Window{}, certs.ErrNoRenewalInfo
	}
	return m.window(leaf)
}

// good issues for 90 days.
func (m *model) good(_ context.Context, name string) (store.Certificate, error) {
	c, err := issue(90*day, name)
	c.Authority = m.Name()
	return c, err
}

// count is how many orders there were.
func (m *model) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.attempts)
}

func (m *model) Obtain(ctx context.Context, r certs.Request) (store.Certificate, error) {
	m.mu.Lock()
	m.attempts = append(m.attempts, attempt{r.Name, time.Now()})
	m.mu.Unlock()
	return m.answer(ctx, r.Name)
}

// of returns when a name was ordered.
func (m *model) of(name string) []time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	var times []time.Time
	for _, a := range m.attempts {
		if a.name == name {
			times = append(times, a.at)
		}
	}
	return times
}

// issue makes a certificate for names[0] that says names, by an authority of its own.
func issue(life time.Duration, names ...string) (store.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return store.Certificate{}, err
	}
	now := time.Now().Truncate(time.Second)
	t := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		NotBefore:    now,
		NotAfter:     now.Add(life),
		DNSNames:     names,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return store.Certificate{}, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	return store.Certificate{
		Name: names[0], Key: pkcs8, Chain: [][]byte{der}, NotBefore: t.NotBefore, NotAfter: t.NotAfter,
	}, err
}

// books is a store in memory: databases have goroutines that a synctest bubble would wait for.
type books struct {
	mu      sync.Mutex
	certs   map[string]store.Certificate
	orders  map[string]store.Order
	values  map[string][]byte
	tenants []store.Tenant
	broken  error // what SaveCertificate says

	pruned  time.Time
	version int64
	last    int64 // newest Seq that is there
	journal map[int64]store.JournalEntry
	changes []int64 // Seq in the order of changes; those of entries that changed again are left out when read
}

func newBooks() *books {
	return &books{
		certs: make(map[string]store.Certificate), orders: make(map[string]store.Order), journal: make(map[int64]store.JournalEntry),
		values: make(map[string][]byte),
	}
}

func (b *books) Certificate(_ context.Context, name string) (store.Certificate, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c, found := b.certs[name]
	if !found {
		return c, store.ErrNotFound
	}
	return c, nil
}

func (b *books) Journal(_ context.Context, after int64) ([]store.JournalEntry, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var entries []store.JournalEntry
	for n := len(b.changes) - 1; n >= 0; n-- { // from the newest back
		e, found := b.journal[b.changes[n]]
		if found && e.Changed <= after {
			break
		}
		if found && !slices.ContainsFunc(entries, func(o store.JournalEntry) bool { return o.Seq == e.Seq }) {
			entries = append(entries, e)
		}
	}
	slices.Reverse(entries)
	return entries, nil
}

func (b *books) AppendJournal(_ context.Context, last int64, e *store.JournalEntry) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.last > last {
		return store.ErrStale
	}
	b.version++
	e.Seq, e.Changed = b.version, b.version
	b.last = e.Seq
	b.journal[e.Seq] = *e
	b.changes = append(b.changes, e.Seq)
	return nil
}

// abandon ends the orders of a process that is gone, as opening a database does.
func (b *books) abandon() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for seq, e := range b.journal {
		if e.Ended.IsZero() {
			e.Ended, e.Failed = e.Begun, true
			b.journal[seq] = e
		}
	}
}

// leaf is that of the certificate that is kept of a name.
func (b *books) leaf(name string) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c, found := b.certs[name]; found {
		return c.Chain[0]
	}
	return nil
}

func (b *books) EndJournal(_ context.Context, e store.JournalEntry) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, found := b.journal[e.Seq]; found {
		b.version++
		e.Changed = b.version
		b.journal[e.Seq] = e
		b.changes = append(b.changes, e.Seq)
	}
	return nil
}

func (b *books) PruneJournal(_ context.Context, counted, exempt, now time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now.Sub(b.pruned) < 6*time.Hour { // it takes long here
		return nil
	}
	b.pruned = now
	maps.DeleteFunc(b.journal, func(_ int64, e store.JournalEntry) bool {
		return (e.Begun.Before(counted) || e.Exempt && e.Begun.Before(exempt)) && e.Stopped.Before(now) ||
			e.Begun.After(now.Add(day))
	})
	b.last = 0
	for seq := range b.journal {
		b.last = max(b.last, seq)
	}
	b.changes = slices.DeleteFunc(b.changes, func(seq int64) bool { _, found := b.journal[seq]; return !found })
	b.last = 0
	for seq := range b.journal {
		b.last = max(b.last, seq)
	}
	return nil
}

func (b *books) EachCertificate(_ context.Context, f func(store.Certificate) error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.certs {
		if err := f(c); err != nil {
			return err
		}
	}
	return nil
}

func (b *books) SaveCertificate(_ context.Context, c store.Certificate) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.broken != nil {
		return b.broken
	}
	b.certs[c.Name] = c
	delete(b.orders, c.Name)
	return nil
}

func (b *books) DeleteCertificate(_ context.Context, name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.certs, name)
	delete(b.orders, name)
	return nil
}

func (b *books) Orders(context.Context) ([]store.Order, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var orders []store.Order
	for _, o := range b.orders {
		if o.Failures > 0 || !o.Next.IsZero() {
			orders = append(orders, o)
		}
	}
	return orders, nil
}

func (b *books) SaveOrder(_ context.Context, o store.Order) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.orders[o.Name] = o
	return nil
}

func (b *books) PlanOrder(_ context.Context, name string, notBefore, notAfter, next time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	c, found := b.certs[name]
	if found && c.NotBefore.Unix() == notBefore.Unix() && c.NotAfter.Unix() == notAfter.Unix() && b.orders[name].Failures == 0 {
		b.orders[name] = store.Order{Name: name, Next: next}
	}
	return nil
}

func (b *books) Tenants(context.Context) ([]store.Tenant, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.tenants), nil
}

// limit sets how many first certificates a tenant may order in a day.
func (b *books) limit(tenant string, orders int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tenants = slices.DeleteFunc(b.tenants, func(t store.Tenant) bool { return t.Name == tenant })
	b.tenants = append(b.tenants, store.Tenant{Name: tenant, Limits: store.Limits{Orders: orders}})
}

func (b *books) setBroken(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.broken = err
}

// run starts a Keeper inside a bubble; stop ends it.
func run(t *testing.T, b *books, m certs.Authority, edit ...func(*certs.Config)) (k *certs.Keeper, stop func()) {
	t.Helper()
	c := certs.Config{Store: b, Authorities: one(m), Log: slog.New(slog.DiscardHandler)}
	for _, f := range edit {
		f(&c)
	}
	k = certs.New(c)
	if err := k.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := k.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	stop = func() {
		cancel()
		<-ended
	}
	return k, stop
}

func (b *books) Value(_ context.Context, key string) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	v, found := b.values[key]
	if !found {
		return nil, store.ErrNotFound
	}
	return v, nil
}

func (b *books) SetValue(_ context.Context, key string, value []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.values[key] = value
	return nil
}

func (b *books) DeleteValue(_ context.Context, key string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.values, key)
	return nil
}

// LastChange, MarkCertificates, CertificatesAfter and CertificatesSince are for copies and other nodes, which this store knows nothing of.
func (b *books) LastChange(context.Context) (int64, error) { return 0, nil }

func (b *books) MarkCertificates(context.Context, string, int64) error { return nil }

func (b *books) CertificatesAfter(context.Context, int64, func(store.Certificate) error) (int64, error) {
	return 0, nil
}

func (b *books) CertificatesSince(context.Context, string, func(store.Certificate) error) error {
	return store.ErrNotFound
}
