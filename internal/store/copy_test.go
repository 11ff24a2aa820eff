package store_test

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stspub/stspub/internal/lab/labtest"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

// keyring is one of keys that consist of a byte each, the newest first.
func keyring(t *testing.T, of ...byte) *store.Keyring {
	t.Helper()
	var keys [][]byte
	for _, b := range of {
		keys = append(keys, bytes.Repeat([]byte{b}, store.KeySize))
	}
	r, err := store.NewKeyring(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// populate puts something into every part of a store: n domains, all but the first served.
func populate(t testing.TB, s store.Store, n int) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	now := time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
	fill(t, s, n+1)
	for i := range n {
		d, err := s.Domain(t.Context(), policygen.Name(fmt.Sprintf("d%06d.example", i+1)))
		must(err)
		for round, text := range []string{"one ✓", "two \\ 'x'"} {
			d.State = store.State{
				Served: text, Record: d.Name.RecordName(), Intended: fmt.Sprintf("%d.%d", i, round), ID: "foreign",
				Dirty: round == 1, Settle: now, Findings: []store.Finding{{Code: "x", Text: "y"}},
			}
			d.Adopt, d.Due = true, now.Add(time.Duration(i)*time.Second)
			must(s.Save(t.Context(), &d, now))
		}
	}
	gone, err := s.Domain(t.Context(), "d000001.example")
	must(err)
	must(s.Delete(t.Context(), gone))
	must(s.AddForeign(t.Context(), "elsewhere.example", "theirs", now))
	must(s.AddForeign(t.Context(), "elsewhere.example", "binary\x00\xff", now))
	for i := range n {
		name := fmt.Sprintf("mta-sts.d%06d.example", i)
		must(s.SaveCertificate(t.Context(), store.Certificate{Name: name, Key: []byte("key of " + name), Chain: [][]byte{{1, 0, 2}, {3}}, NotBefore: now, NotAfter: now}))
	}
	last, err := s.LastChange(t.Context())
	must(err)
	must(s.MarkCertificates(t.Context(), "mark", last))
	must(s.DeleteCertificate(t.Context(), "mta-sts.d000000.example"))
	must(s.SaveOrder(t.Context(), store.Order{Name: "o", Failures: 2, Problem: "no"}))
	e := store.JournalEntry{Authority: "lab", Name: "n", Domain: "d", Begun: now, Exempt: true}
	must(s.AppendJournal(t.Context(), 0, &e))
	e.Ended, e.Reason = now, "because"
	must(s.EndJournal(t.Context(), e))
	must(s.SetValue(t.Context(), "acme/key", []byte{0, 1, 2}))
	must(s.SetValue(t.Context(), "acme/empty", nil))
	must(s.AddWebhook(t.Context(), store.Webhook{Name: "hook", URL: "https://hooks.example/", Secret: []byte("hidden"), Created: now}, now))
}

// shows is all that a store shows.
func shows(t *testing.T, s store.Store) map[string]any {
	t.Helper()
	all := make(map[string]any)
	put := func(key string, v any, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		all[key] = v
	}
	var names []policygen.Name
	put("each", nil, s.EachDomain(t.Context(), func(d store.Domain) error {
		names = append(names, d.Name)
		put("domain "+string(d.Name), d, nil)
		return nil
	}))
	for _, n := range append(names, "d000001.example", "elsewhere.example") {
		h, err := s.History(t.Context(), n)
		put("history "+string(n), h, err)
		ids, err := s.IDs(t.Context(), n.RecordName())
		put("ids "+string(n), ids, err)
	}
	put("certificates", nil, s.EachCertificate(t.Context(), func(c store.Certificate) error { put("certificate "+c.Name, c, nil); return nil }))
	changed := make(map[string]bool)
	put("since", changed, s.CertificatesSince(t.Context(), "mark", func(c store.Certificate) error { changed[c.Name] = len(c.Key) > 0; return nil }))
	served := make(map[policygen.Name]string)
	next, err := s.ServedSince(t.Context(), 0, func(name policygen.Name, text string) error { served[name] = text; return nil })
	put("served", served, err)
	put("next", next, nil)
	sets, err := s.MXSets(t.Context())
	put("sets", sets, err)
	orders, err := s.Orders(t.Context())
	put("orders", orders, err)
	journal, err := s.Journal(t.Context(), 0)
	put("journal", journal, err)
	webhooks, err := s.Webhooks(t.Context(), "")
	put("webhooks", webhooks, err)
	for _, key := range []string{"acme/key", "acme/empty"} {
		v, err := s.Value(t.Context(), key)
		put("value "+key, v, err)
	}
	return all
}

// TestCopy moves a store from SQLite to PostgreSQL and back, sealed.
func TestCopy(t *testing.T) {
	t.Parallel()
	server := labtest.StartPostgreSQL(t)
	ring := keyring(t, 1)
	sqlite := func(name string) *store.SQLite {
		t.Helper()
		s, err := store.OpenSealedSQLite(t.Context(), filepath.Join(t.TempDir(), name), ring)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	from, back := sqlite("from.db"), sqlite("back.db")
	postgres := func(url string, ring *store.Keyring) *store.Postgres {
		t.Helper()
		s, err := store.OpenPostgres(t.Context(), url, ring)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	to := postgres(server.Database(t), ring)
	populate(t, from, 2100) // more than two batches
	var told []string
	tell := func(doing string, rows int) { told = append(told, fmt.Sprint(doing, " ", rows)) }
	for _, c := range []struct{ from, to store.Store }{{from, to}, {to, back}} {
		told = nil
		if err := store.Copy(t.Context(), c.from, c.to, tell); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"copy domains 1000", "copy domains 2100", "verify domains 2100", "verify key_values 2"} {
			if !strings.Contains(strings.Join(told, "\n"), want) {
				t.Errorf("it did not tell %q, but %q", want, told)
			}
		}
		want, got := shows(t, c.from), shows(t, c.to)
		if c.from == store.Store(from) { // what PostgreSQL does not take
			h := want["history elsewhere.example"].([]store.Served)
			h[1].Text = "binary\uFFFD\uFFFD"
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("the copy shows something else (-want +got):\n%s", diff[:min(len(diff), 3000)])
		}
	}
	if err := store.Copy(t.Context(), from, to, tell); err == nil || !strings.Contains(err.Error(), "name an empty database") {
		t.Errorf("copy to one that is in use: %v", err)
	}
	err := store.Copy(t.Context(), from, postgres(server.Database(t), keyring(t, 2)), tell)
	if err == nil || !strings.Contains(err.Error(), "sealed with the key "+ring.ID()) {
		t.Errorf("copy to one with another key: %v", err)
	}
	for _, s := range []store.Store{to, back} {
		worksOn(t, s)
	}
}

// worksOn uses what numbers are given anew.
func worksOn(t *testing.T, s store.Store) {
	t.Helper()
	decl := declaration(2101)
	decl.Domains = append(decl.Domains[:1:1], decl.Domains[2:]...) // one was deleted
	if c, err := s.Declare(t.Context(), decl, time.Now()); err != nil || c != (store.Change{}) {
		t.Errorf("the same declaration: %+v, %v", c, err)
	}
	versions := make(map[int64]bool)
	if err := s.EachDomain(t.Context(), func(d store.Domain) error { versions[d.Version] = true; return nil }); err != nil {
		t.Fatal(err)
	}
	last, err := s.LastChange(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	d, err := s.Domain(t.Context(), "d000007.example")
	if err != nil {
		t.Fatal(err)
	}
	d.State.Served, d.State.Intended = "three", "new id"
	if err := s.Save(t.Context(), &d, time.Now()); err != nil {
		t.Fatal(err)
	}
	if versions[d.Version] {
		t.Errorf("version %d was there before", d.Version)
	}
	if now, err := s.LastChange(t.Context()); err != nil || now <= last {
		t.Errorf("LastChange() = %d, %v after %d", now, err, last)
	}
	h, err := s.History(t.Context(), d.Name)
	if err != nil || len(h) != 3 || h[2].Text != "three" {
		t.Errorf("History() = %v, %v", h, err)
	}
	if err := s.MarkCertificates(t.Context(), "next", last); err != nil {
		t.Error(err)
	}
}
