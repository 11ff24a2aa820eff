package httpd

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/store"
)

// shelf is a store of values.
type shelf struct {
	mu     sync.Mutex // guards values
	values map[string][]byte
	broken atomic.Bool
}

func (s *shelf) Value(_ context.Context, key string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken.Load() {
		return nil, errors.New("the disk is on fire")
	}
	v, found := s.values[key]
	if !found {
		return nil, store.ErrNotFound
	}
	return v, nil
}

func (s *shelf) SetValue(_ context.Context, key string, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken.Load() {
		return errors.New("the disk is on fire")
	}
	if s.values == nil {
		s.values = make(map[string][]byte)
	}
	s.values[key] = value
	return nil
}

func (s *shelf) EnsureValue(_ context.Context, key string, value []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken.Load() {
		return nil, errors.New("the disk is on fire")
	}
	if v, found := s.values[key]; found {
		return v, nil
	}
	if s.values == nil {
		s.values = make(map[string][]byte)
	}
	s.values[key] = value
	return value, nil
}

// session is a client's one session, which it offers to whomever.
type session struct{ state *tls.ClientSessionState }

func (s *session) Get(string) (*tls.ClientSessionState, bool) { return s.state, s.state != nil }

func (s *session) Put(_ string, state *tls.ClientSessionState) { s.state = state }

// visit makes a handshake and a request, and says whether the session was taken up.
func (w *world) visit(t *testing.T, name string, version uint16, s *session) (resumed bool, err error) {
	t.Helper()
	conn, err := w.tryDial(&tls.Config{
		ServerName: name, MinVersion: version, MaxVersion: version, ClientSessionCache: s, NextProtos: []string{"http/1.1"},
		InsecureSkipVerify: true, // a client that offers another name's session must not find out by itself
	})
	if err != nil {
		return false, err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET "+policyPath+" HTTP/1.1\r\nHost: "+name+"\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(conn); err != nil || !slices.Contains([]int{200, 421}, statusOf(answer)) { // it also reads the ticket
		t.Fatalf("answer %q, %v", answer, err)
	}
	return conn.ConnectionState().DidResume, nil
}

func statusOf(answer []byte) int {
	if len(answer) < 12 {
		return 0
	}
	return int(answer[9]-'0')*100 + int(answer[10]-'0')*10 + int(answer[11]-'0')
}

// TestTickets: nodes, and the next process, take up each other's sessions, for the same name and while it has a certificate.
func TestTickets(t *testing.T) {
	t.Parallel()
	values := new(shelf)
	var gone atomic.Bool
	node := func() *world {
		return newPublic(t, func(cfg *PublicConfig) {
			cfg.Values = values
			certificate := cfg.GetCertificate
			cfg.Serves = func(string) bool { return !gone.Load() }
			cfg.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
				if gone.Load() {
					return nil, nil
				}
				return certificate(hello)
			}
		})
	}
	one := node()
	caWith := func(w *world) *world { w.ca.leafs, w.ca.roots = one.ca.leafs, one.ca.roots; return w.run(t) }
	one.run(t)
	two := caWith(node())
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		gone.Store(false)
		s := new(session)
		visit := func(what string, w *world, name string, want bool) {
			t.Helper()
			if resumed, err := w.visit(t, name, version, s); resumed != want || err != nil {
				t.Errorf("%s, %s: taken up %v, %v, want %v", tls.VersionName(version), what, resumed, err, want)
			}
		}
		visit("first", one, "mta-sts.a.example", false)
		visit("again", one, "mta-sts.a.example", true)
		visit("another node", two, "mta-sts.a.example", true)
		kept := s.state
		visit("another name", two, "mta-sts.b.example", false)
		s.state = kept
		visit("the next process", caWith(node()), "MTA-STS.a.example", true)
		gone.Store(true)
		if resumed, err := two.visit(t, "mta-sts.a.example", version, s); err == nil {
			t.Errorf("%s: a session of a name without a certificate: taken up %v, want no handshake", tls.VersionName(version), resumed)
		}
	}
}

// TestFirstTicketKey: nodes that start at the same moment, and all see no key yet, go on with one and the same.
func TestFirstTicketKey(t *testing.T) {
	t.Parallel()
	for _, before := range []map[string][]byte{nil, {keyTickets: []byte("no list of keys")}} {
		nodes := &tickets{values: &shelf{values: before}}
		var first []ticketKey
		for i := range 3 {
			keys, err := nodes.found(t.Context(), ticketKey{Key: [32]byte{byte(i) + 1}})
			if err != nil || len(keys) != 1 {
				t.Fatalf("node %d: %d keys, %v, want one", i, len(keys), err)
			}
			if i == 0 {
				first = keys
			}
			if keys[0] != first[0] {
				t.Errorf("node %d goes on with another key than the first", i)
			}
		}
	}
}

// TestTicketsWithoutStore: a node that cannot read the keys serves, and takes up its own sessions.
func TestTicketsWithoutStore(t *testing.T) {
	t.Parallel()
	values := new(shelf)
	values.broken.Store(true)
	w := newPublic(t, func(cfg *PublicConfig) { cfg.Values, cfg.Serves = values, func(string) bool { return true } }).run(t)
	s := new(session)
	for i, want := range []bool{false, true} {
		if resumed, err := w.visit(t, "mta-sts.a.example", tls.VersionTLS13, s); resumed != want || err != nil {
			t.Errorf("visit %d: taken up %v, %v, want %v", i, resumed, err, want)
		}
	}
	if _, err := NewPublic(PublicConfig{
		Hostname: "x", Target: "x", Policies: w.snapshot, GetCertificate: w.ca.certificate, Log: slog.New(slog.DiscardHandler), Values: values,
	}); err == nil {
		t.Error("tickets without Serves")
	}
}

// TestTicketsWhileKeysRotate: two servers on one real store take up each other's sessions for two days, whichever of them
// made the keys, and for no more than four.
func TestTicketsWhileKeysRotate(t *testing.T) {
	t.Parallel()
	s, err := store.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "stspub.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	node := func() *world {
		return newPublic(t, func(cfg *PublicConfig) { cfg.Values, cfg.Serves = s, func(string) bool { return true } })
	}
	nodes := [2]*world{node(), node()}
	nodes[1].ca.leafs, nodes[1].ca.roots = nodes[0].ca.leafs, nodes[0].ca.roots
	for _, n := range nodes {
		if _, err := n.run(t).visit(t, "mta-sts.a.example", tls.VersionTLS13, new(session)); err != nil { // it has its keys then
			t.Fatal(err)
		}
	}
	now := time.Now()
	// pass has both look at the keys as often as they do.
	pass := func(d time.Duration) {
		t.Helper()
		for end := now.Add(d); now.Before(end); {
			now = now.Add(ticketEvery)
			for _, n := range nodes {
				if err := n.ticket.load(t.Context(), now); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	keys := make(map[[32]byte]bool)
	for round := range 4 {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			made, other := nodes[round%2], nodes[1-round%2]
			first := new(session)
			if resumed, err := made.visit(t, "mta-sts.a.example", version, first); resumed || err != nil {
				t.Fatalf("first visit: taken up %v, %v", resumed, err)
			}
			visit := func(what string, want bool) {
				t.Helper()
				for _, n := range []*world{other, made} {
					kept := &session{first.state} // that of the first visit, always
					if resumed, err := n.visit(t, "mta-sts.a.example", version, kept); resumed != want || err != nil {
						t.Errorf("%s, round %d, %s: taken up %v, %v, want %v", tls.VersionName(version), round, what, resumed, err, want)
					}
				}
			}
			visit("at once", true)
			pass(ticketDay)
			visit("after a day", true)
			pass(ticketDay)
			visit("after two days", true)
			pass(2*ticketDay + ticketLead)
			visit("after four days", false)
		}
		stored, err := nodes[0].ticket.read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range stored {
			keys[k.Key] = true
		}
	}
	if len(keys) < 4*ticketKeys {
		t.Errorf("%d keys in 32 days", len(keys))
	}
}

// TestTicketKeysOfTwoNodes: over a month, at no moment does a node make tickets with a key that the other does not have, each
// key makes tickets for a day, and a ticket opens for two days.
func TestTicketKeysOfTwoNodes(t *testing.T) {
	t.Parallel()
	values := new(shelf)
	serves := func(string) bool { return true }
	var nodes [2]*tickets
	for i := range nodes {
		nodes[i] = newTickets(new(tls.Config), values, serves, slog.New(slog.DiscardHandler))
	}
	now := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	made := make(map[[32]byte][2]time.Time) // from and to when a key made tickets
	var last [2][][32]byte
	for step := range 31 * 24 * 60 {
		for i, n := range nodes {
			if step%int(ticketEvery/time.Minute) != 7*i { // each at its own minutes
				continue
			}
			if err := n.load(t.Context(), now); err != nil {
				t.Fatal(err)
			}
			keys, err := n.read(t.Context())
			if err != nil || len(keys) > ticketKeys+1 {
				t.Fatalf("%d keys, %v", len(keys), err)
			}
			last[i] = order(keys, now)
		}
		for i := range nodes {
			if len(last[i]) == 0 || len(last[1-i]) == 0 {
				continue
			}
			key := last[i][0]
			if !slices.Contains(last[1-i], key) {
				t.Fatalf("%v: node %d makes tickets that node %d cannot open", now, i, 1-i)
			}
			span, known := made[key]
			if !known {
				span[0] = now
			}
			span[1] = now
			made[key] = span
		}
		for key, span := range made {
			if open := slices.Contains(last[0], key); !open && now.Sub(span[1]) < 2*ticketDay-2*ticketEvery-ticketLead {
				t.Fatalf("a ticket cannot be opened after %v", now.Sub(span[1]))
			} else if open && now.Sub(span[0]) > 4*ticketDay {
				t.Fatalf("a key is kept for %v", now.Sub(span[0]))
			}
		}
		now = now.Add(time.Minute)
	}
	if len(made) < 30 || len(made) > 32 {
		t.Errorf("%d keys made tickets in 31 days", len(made))
	}
	// A clock that was wrong leaves a key from the future, which is not waited for.
	if err := nodes[0].load(t.Context(), now.AddDate(1, 0, 0)); err != nil {
		t.Fatal(err)
	}
	if err := nodes[0].load(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	if keys, err := nodes[0].read(t.Context()); err != nil || !keys[0].Made.Equal(now) {
		t.Errorf("the newest key is %v, %v, want one of %v", keys[0].Made, err, now)
	}
	values.values[keyTickets] = []byte("garbage")
	if err := nodes[0].load(t.Context(), now); err != nil {
		t.Errorf("with a value that cannot be read: %v", err)
	}
	if keys, err := nodes[0].read(t.Context()); err != nil || len(keys) != 1 {
		t.Errorf("%d keys, %v, want a new one", len(keys), err)
	}
}
