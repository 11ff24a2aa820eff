package certs_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"hash/fnv"
	"math/big"
	"sync"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/certs"
	"github.com/stspub/stspub/internal/store"
)

// modelCA enforces the limits that Let's Encrypt documents, and what it sees is the truth about the scheduler.
type modelCA struct {
	t      *testing.T
	scale  int                               // of the limits that count orders, as a divisor
	life   func(now time.Time) time.Duration // of a certificate that is issued then
	down   func(now time.Time) bool
	broken func(name string, now time.Time) bool
	held   func(name string) []byte // the leaf that the store has of a name
	traced func(now time.Time) bool // orders are noted then
	mint   *mint
	begun  time.Time

	mu       sync.Mutex
	running  map[string]bool // names that are being ordered
	began    chan struct{}   // capacity 1: an order was begun
	orders   bucket
	domains  map[string]*bucket
	names    map[string]*bucket // 5 of one exact name set in 7 days
	failed   map[string]*bucket // 5 failed authorisations a name and hour
	valid    map[string]issued
	replaced map[string]bool // leafs

	first, renewals map[int]int // by day
	exempt, counted int
	failures        int            // orders that a broken name cost
	weeks           map[string]int // of them, by name and week
	worst           int            // most of weeks
	lost            int            // requests while it was down
	tried           map[string]bool
	cut, cutCounted int // orders that ended with the process, and those of them that count
	vanished        int // certificates that were issued, and never came to be in the store
	seen            []sight
	expired         []string
	refused         int // by a limit
	questions       int
}

type issued struct {
	from, to time.Time
	leaf     string
}

// sight is an order as it was begun.
type sight struct {
	name       string
	at, expiry time.Time // of the certificate that there was; zero: none
}

// bucket is a token bucket as Let's Encrypt has it.
type bucket struct {
	size   float64
	period time.Duration
	tokens float64
	at     time.Time
}

func newBucket(size float64, period time.Duration) *bucket {
	return &bucket{size: size, period: period, tokens: size, at: time.Now()}
}

func (b *bucket) take(now time.Time) bool {
	b.tokens = min(b.size, b.tokens+b.size*float64(now.Sub(b.at))/float64(b.period))
	b.at = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

func (b *bucket) empty(now time.Time) bool {
	return b != nil && b.tokens+b.size*float64(now.Sub(b.at))/float64(b.period) < 1
}

func newModelCA(t *testing.T, scale int) *modelCA {
	return &modelCA{
		t: t, scale: scale, mint: newMint(t), begun: time.Now(),
		life:   func(time.Time) time.Duration { return 90 * day },
		down:   func(time.Time) bool { return false },
		broken: func(string, time.Time) bool { return false },
		orders: *newBucket(300/float64(scale), 3*time.Hour), domains: make(map[string]*bucket), names: make(map[string]*bucket),
		failed: make(map[string]*bucket), valid: make(map[string]issued), replaced: make(map[string]bool),
		weeks: make(map[string]int), first: make(map[int]int), renewals: make(map[int]int), tried: make(map[string]bool),
		running: make(map[string]bool), began: make(chan struct{}, 1), held: func(string) []byte { return nil }, traced: func(time.Time) bool { return false },
	}
}

func (m *modelCA) Name() string  { return "model" }
func (m *modelCA) Staging() bool { return false }

var errDown = errors.New("ask the authority: connection refused")

// Window is two days around two thirds of a 90 day life, and in that proportion for others.
func (m *modelCA) Window(_ context.Context, leaf []byte) (certs.Window, error) {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down(now) {
		m.lost++
		return certs.Window{}, errDown
	}
	m.questions++
	from, to, err := m.mint.times(leaf)
	if err != nil {
		return certs.Window{}, err
	}
	life := to.Sub(from)
	ideal := from.Add(life * 2 / 3)
	return certs.Window{Start: ideal.Add(-life / 90), End: ideal.Add(life / 90), Retry: 20 * day}, nil // in truth 6 hours
}

func (m *modelCA) limited(what string) error {
	m.refused++
	m.t.Errorf("day %d: %s", m.day(time.Now()), what)
	return &certs.Problem{Status: 429, Type: "urn:ietf:params:acme:error:rateLimited", Detail: what, RetryAfter: time.Hour}
}

func (m *modelCA) day(now time.Time) int { return int(now.Sub(m.begun) / day) }

func (m *modelCA) Obtain(ctx context.Context, r certs.Request) (store.Certificate, error) {
	counted, err := m.order(r, time.Now())
	if err != nil {
		return store.Certificate{}, err
	}
	m.start(r.Name)
	done := false
	select {
	case <-ctx.Done():
		done = true
	case <-time.After(3 * time.Second):
	}
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.running, r.Name)
	if done {
		if m.cut++; counted {
			m.cutCounted++
		}
		return store.Certificate{}, ctx.Err()
	}
	if m.broken(r.Name, now) {
		m.failures++
		week := fmt.Sprint(r.Name, now.Unix()/int64((7*day).Seconds()))
		m.weeks[week]++
		m.worst = max(m.worst, m.weeks[week])
		if !bucketOf(m.failed, r.Name, 5, time.Hour).take(now) {
			m.t.Errorf("%s: more than 5 failed authorisations in an hour", r.Name)
		}
		return store.Certificate{}, &certs.Problem{Challenge: "http-01", Type: "urn:ietf:params:acme:error:dns", Detail: "no such host"}
	}
	c := m.mint.issue(r.Name, now, now.Add(m.life(now)))
	old, again := m.valid[r.Name]
	if !again || string(r.Replaces) != old.leaf {
		bucketOf(m.names, r.Name, 5, 7*day).take(now)
		bucketOf(m.domains, domainOf(r.Name), 50, 7*day).take(now)
	}
	if again {
		m.renewals[m.day(now)]++
		m.replaced[old.leaf] = true
		if old.to.Before(now) && !recently(m, r.Name, old.to) {
			m.expired = append(m.expired, fmt.Sprintf("%s on day %d", r.Name, m.day(old.to)))
		}
	} else {
		m.first[m.day(now)]++
	}
	m.valid[r.Name] = issued{c.NotBefore, c.NotAfter, string(c.Chain[0])}
	return c, nil
}

func bucketOf(all map[string]*bucket, key string, size float64, period time.Duration) *bucket {
	b := all[key]
	if b == nil {
		b = newBucket(size, period)
		all[key] = b
	}
	return b
}

// order counts one as the authority does.
func (m *modelCA) order(r certs.Request, now time.Time) (counted bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	old, again := m.valid[r.Name]
	if m.traced(now) {
		m.seen = append(m.seen, sight{r.Name, now, old.to})
	}
	if m.down(now) {
		m.lost++
		m.tried[r.Name] = true
		return false, errDown
	}
	if m.failed[r.Name].empty(now) {
		return false, m.limited("too many failed authorizations for " + r.Name)
	}
	m.needed(r.Name, old, again, now)
	if again && string(r.Replaces) == old.leaf && !m.replaced[old.leaf] {
		m.exempt++
		return false, nil
	}
	if r.Replaces != nil && string(m.held(r.Name)) == old.leaf {
		m.t.Errorf("%s: it replaces what is replaced", r.Name)
	}
	m.counted++
	if m.names[r.Name].empty(now) {
		return true, m.limited("too many certificates already issued for this exact set of identifiers")
	}
	if again {
		return true, nil // the same name set is exempt from the others
	}
	if !m.orders.take(now) {
		return true, m.limited("too many new orders")
	}
	if m.domains[domainOf(r.Name)].empty(now) {
		return true, m.limited("too many certificates already issued for " + r.Name)
	}
	return true, nil
}

// start notes that an order is running.
func (m *modelCA) start(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.running[name] {
		m.t.Errorf("day %d: %s is ordered while it is ordered", m.day(time.Now()), name)
	}
	m.running[name] = true
	select {
	case m.began <- struct{}{}:
	default:
	}
}

// ordering waits until an order is begun.
func (m *modelCA) ordering() {
	select {
	case <-m.began: // of before
	default:
	}
	<-m.began
}

// needed sees that nothing is ordered twice: the certificate that there is must be old enough, unless the process was
// killed before it was in the store.
func (m *modelCA) needed(name string, old issued, again bool, now time.Time) {
	switch used := now.Sub(old.from); {
	case !again:
	case string(m.held(name)) != old.leaf:
		m.vanished++
	case used < old.to.Sub(old.from)*45/100:
		m.t.Errorf("day %d: %s is ordered again after %v", m.day(now), name, used)
	}
}

func domainOf(host string) string { return host[len("mta-sts."):] }

// mint makes certificates that differ in name and times alone, a hundred times faster than signing each.
type mint struct {
	der, key []byte
	name     string
	at       time.Time
}

func newMint(t *testing.T) *mint {
	t.Helper()
	m := &mint{name: "mta-sts.c000000.test", at: time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1 << 62), NotBefore: m.at, NotAfter: m.at.Add(time.Second), DNSNames: []string{m.name},
	}
	if m.der, err = x509.CreateCertificate(rand.Reader, c, c, key.Public(), key); err != nil {
		t.Fatal(err)
	}
	if m.key, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
		t.Fatal(err)
	}
	return m
}

// utcTime is a time in a certificate.
const utcTime = "060102150405Z"

// times reads a certificate back.
func (m *mint) times(der []byte) (from, to time.Time, err error) {
	at := bytes.Index(m.der, []byte(m.at.Format(utcTime)))
	if from, err = time.Parse(utcTime, string(der[at:at+len(utcTime)])); err != nil {
		return from, to, err
	}
	at += len(utcTime) + 2 // tag and length
	to, err = time.Parse(utcTime, string(der[at:at+len(utcTime)]))
	return from, to, err
}

// issue makes one of the model's.
func (m *mint) issue(name string, from, to time.Time) store.Certificate {
	return m.issueBy("model", name, from, to)
}

// issueBy patches the certificate. A name is as long as that of any other.
func (m *mint) issueBy(authority, name string, from, to time.Time) store.Certificate {
	from, to = from.UTC().Truncate(time.Second), to.UTC().Truncate(time.Second)
	der := bytes.Replace(m.der, []byte(m.name), []byte(name), 1)
	der = bytes.Replace(der, []byte(m.at.Format(utcTime)), []byte(from.Format(utcTime)), 1)
	der = bytes.Replace(der, []byte(m.at.Add(time.Second).Format(utcTime)), []byte(to.Format(utcTime)), 1)
	return store.Certificate{
		Name: name, Key: m.key, Chain: [][]byte{der, []byte("issuer")}, NotBefore: from, NotAfter: to, Authority: authority,
	}
}

// host is the policy host of a customer.
func host(n int) string { return fmt.Sprintf("mta-sts.c%06d.test", n) }

// share says for a share of all names and spells of time: one in n.
func share(name string, now time.Time, spell time.Duration, n uint64) bool {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s %d", name, now.Unix()/int64(spell.Seconds()))
	x := h.Sum64()
	x ^= x >> 29
	x *= 0xbf58476d1ce4e5b9
	return (x^x>>32)%n == 0
}
