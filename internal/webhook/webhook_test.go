package webhook

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stspub/stspub/internal/lab/labtest"
	"github.com/stspub/stspub/internal/sender"
	"github.com/stspub/stspub/internal/store"
)

// domains are names of n domains.
func domains(n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("d%d.example", i))
	}
	return names
}

// everyOther refuses every other call.
func everyOther(status int) func(call) (int, http.Header) {
	var n atomic.Int64
	return func(call) (int, http.Header) {
		if n.Add(1)%2 == 0 {
			return status, nil
		}
		return 200, nil
	}
}

// A receiver that fails every other call gets everything, in order for each domain, over real HTTPS.
func TestOrderWithFailures(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, everyOther(500))
	url, roots := serve(t, r)
	w := newWorld(t, openSQLite(t), hasty(), func(c *Config) { c.Roots = roots })
	w.addTenants("acme", "other")
	w.step("acme", "d0.example", 99) // before there was a webhook
	w.put("acme", "panel", url+"/hooks", r)
	names := domains(7)
	emit := func(from, to int) {
		for n := from; n <= to; n++ {
			for _, name := range names {
				w.step("acme", name, n)
				w.step("other", name, n)
				w.happens(store.Event{Tenant: "acme", Kind: store.KindTokenAdded, Name: name, Text: "not chosen"})
			}
		}
	}
	emit(1, 10)
	w.start()
	emit(11, 20)
	r.await(len(names) * 20)
	inOrder(t, r, 20, names...)
	all, taken := r.got()
	for _, c := range all {
		if c.Data.Tenant != "acme" {
			t.Errorf("tenant acme is told %s", c.body)
		}
	}
	if len(all) <= len(taken) {
		t.Errorf("%d calls, all taken", len(all))
	}
	i := w.until("acme", "panel", func(i Info) bool { return i.State == StateGood })
	if i.Lost != 0 || i.Problem != "" || i.Waiting != 0 || i.Delivered.IsZero() {
		t.Errorf("webhook %+v, want a good one", i)
	}
}

// What a call says, to the byte: programs are written after it.
func TestMessage(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, nil)
	url, roots := serve(t, r)
	w := newWorld(t, openSQLite(t), hasty(), func(c *Config) { c.Roots = roots })
	w.addTenants("acme")
	w.put("acme", "panel", url, r, store.KindDomainFault)
	at := time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)
	w.happens(store.Event{
		At: at, Tenant: "acme", Kind: store.KindDomainFault, Name: "shop.example", Actor: "stspub", Text: "an MX is not covered",
		After: json.RawMessage(`{"code":"mx"}`),
	})
	w.start()
	r.await(1)
	_, taken := r.got()
	c := taken[0]
	want := fmt.Sprintf(`{"type":"domain.fault","timestamp":"2026-11-22T09:00:00Z","data":{"seq":%d,"tenant":"acme","name":"shop.example",`+
		`"actor":"stspub","text":"an MX is not covered","after":{"code":"mx"}}}`, c.Data.Seq)
	if diff := cmp.Diff(want, string(c.body)); diff != "" {
		t.Errorf("body (-want +got):\n%s", diff)
	}
	if got := c.header.Get("Content-Type"); got != "application/json" || !strings.HasPrefix(c.id, "msg_") || strings.Contains(c.id, ".") {
		t.Errorf("content type %q, id %q", got, c.id)
	}
}

// The service hears of all tenants and of itself.
func TestServiceHearsAll(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, nil)
	url, roots := serve(t, r)
	w := newWorld(t, openSQLite(t), hasty(), func(c *Config) { c.Roots = roots })
	w.addTenants("acme")
	w.put("", "ops", url, r)
	w.step("acme", "a.example", 1)
	w.step(store.DefaultTenant, "b.example", 1)
	w.step("", "c.example", 1)
	w.start()
	r.await(3)
	inOrder(t, r, 1, "a.example", "b.example", "c.example")
}

// A receiver that does what none should.
func TestHostileReceivers(t *testing.T) {
	t.Parallel()
	var elsewhere atomic.Int64
	target, _ := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	t.Cleanup(func() { // after the parallel ones below
		if n := elsewhere.Load(); n != 0 {
			t.Errorf("a redirect was followed %d times", n)
		}
	})
	for _, tt := range []struct {
		name    string
		handler http.HandlerFunc
		problem string
	}{
		{
			"redirects", func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, target, http.StatusTemporaryRedirect)
			},
			"it answered 307 Temporary Redirect: redirects are not followed, so put the URL that it leads to",
		},
		{"refuses", func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "secret of the receiver", http.StatusForbidden)
		}, "it answered 403 Forbidden"},
		{"hangs", func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // until then net/http does not look whether the client is there
			<-r.Context().Done()
			panic(http.ErrAbortHandler) // an answer, even now, would be one
		}, "no connection"},
		{"sends a header without end", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X", strings.Repeat("x", 1<<20)) }, "no connection"},
		{"resets", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "no connection"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			url, roots := serve(t, tt.handler)
			s := hasty()
			s.answer = 2 * time.Second
			w := newWorld(t, openSQLite(t), s, func(c *Config) { c.Roots = roots })
			w.put("", "x", url, nil)
			w.step("", "a.example", 1)
			w.start()
			i := w.until("", "x", func(i Info) bool { return i.Waiting > 0 })
			if i.Problem != tt.problem || i.State != StateFailing || i.Waiting != 1 || i.Since.IsZero() || i.Next.IsZero() {
				t.Errorf("webhook %+v, want the problem %q", i, tt.problem)
			}
			got, err := w.Test(t.Context(), "", "x")
			if err != nil || got.Taken || got.Problem != tt.problem {
				t.Errorf("test = %+v, %v, want the problem %q", got, err, tt.problem)
			}
		})
	}
}

// An answer that never ends is taken for what its status says, and not read.
func TestGiantAnswer(t *testing.T) {
	t.Parallel()
	var sent atomic.Int64
	url, roots := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			n, err := w.Write(make([]byte, 64<<10))
			if sent.Add(int64(n)); err != nil {
				return
			}
		}
	}))
	w := newWorld(t, openSQLite(t), hasty(), func(c *Config) { c.Roots = roots })
	w.put("", "x", url, nil)
	got, err := w.Test(t.Context(), "", "x")
	if err != nil || !got.Taken || got.Status != 200 {
		t.Errorf("test = %+v, %v, want it taken", got, err)
	}
	if n := sent.Load(); n > 32<<20 {
		t.Errorf("%d bytes of the answer went out", n)
	}
}

// 410 pauses a webhook, until it is resumed: then it goes on where it stopped.
func TestGonePauses(t *testing.T) {
	t.Parallel()
	var back atomic.Bool
	r := newReceiver(t, func(call) (int, http.Header) {
		if back.Load() {
			return 200, nil
		}
		return 410, nil
	})
	url, roots := serve(t, r)
	w := newWorld(t, openSQLite(t), hasty(), func(c *Config) { c.Roots = roots })
	w.put("", "x", url, r)
	w.step("", "a.example", 1)
	w.start()
	i := w.until("", "x", func(i Info) bool { return i.State == StatePaused })
	if want := "it answered 410 Gone: it wants no more events"; i.Problem != want {
		t.Errorf("problem %q, want %q", i.Problem, want)
	}
	w.step("", "a.example", 2)
	w.step("", "b.example", 1)
	back.Store(true)
	before, _ := r.got()
	if _, err := w.Resume(t.Context(), "", "x"); err != nil {
		t.Fatal(err)
	}
	r.await(3)
	_, taken := r.got()
	if len(before) != 1 || len(taken) != 3 || taken[0].Data.Name == taken[1].Data.Name && taken[0].Data.Text != "1" {
		t.Errorf("%d calls while it paused, then %v", len(before), taken)
	}
	w.until("", "x", func(i Info) bool { return i.State == StateGood && i.Problem == "" })
}

// Who is slow, or silent, delays nobody else.
func TestSlowReceiverDelaysNoOther(t *testing.T) {
	t.Parallel()
	silent := make(chan struct{})
	silentURL, _ := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-silent:
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		}
	}))
	t.Cleanup(func() { close(silent) })
	r := newReceiver(t, nil)
	url, roots := serve(t, r)
	w := newWorld(t, openSQLite(t), hasty(), func(c *Config) { c.Roots = roots })
	w.addTenants("slow", "quick")
	for i := range 5 {
		w.put("slow", fmt.Sprintf("s%d", i), silentURL, nil)
	}
	w.put("quick", "q", url, r)
	w.start()
	names := domains(20)
	begun := time.Now()
	for n := 1; n <= 3; n++ {
		for _, name := range names {
			w.step("slow", name, n)
			w.step("quick", name, n)
		}
	}
	r.await(60)
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("the quick one had all after %s", took)
	}
	inOrder(t, r, 3, names...)
}

// When it is told to stop it does within seconds, keeps what it did, and gives back what it had.
func TestStop(t *testing.T) {
	t.Parallel()
	silent := make(chan struct{})
	r := newReceiver(t, func(c call) (int, http.Header) {
		if c.Data.Name == "silent.example" {
			<-silent
		}
		return 200, nil
	})
	url, roots := serve(t, r)
	t.Cleanup(func() { close(silent) })
	st := openSQLite(t)
	w := newWorld(t, st, hasty(), func(c *Config) { c.Roots = roots })
	w.put("", "x", url, r)
	w.step("", "a.example", 1)
	w.step("", "silent.example", 1)
	w.step("", "b.example", 1)
	w.start()
	r.await(2)
	begun := time.Now()
	w.stop()
	if took := time.Since(begun); took > drainTime+2*time.Second {
		t.Errorf("it stopped after %s", took)
	}
	claimed, _, err := st.ClaimWebhooks(t.Context(), Lease, 9)
	if err != nil || len(claimed) != 1 {
		t.Fatalf("claim after the stop = %v, %v, want the webhook", claimed, err)
	}
	if held := claimed[0].Delivery; len(held.Held) != 0 || held.Problem != "" || held.Delivered.IsZero() {
		t.Errorf("after the stop %+v: what was cut off counts for a failure", held)
	}
}

// Private addresses are not connected to, also by a name; and the tenant is told no more than of a port where nobody listens.
func TestPrivateReceiversAreRefused(t *testing.T) {
	t.Parallel()
	var reached atomic.Int64
	url, roots := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	port := url[strings.LastIndexByte(url, ':')+1:]
	var detail error
	w := newWorld(t, openSQLite(t), hasty(), func(c *Config) {
		c.Roots = roots
		c.Dial = (&sender.Guard{}).Dial
	})
	for i, target := range []string{
		"https://127.0.0.1:" + port, "https://localhost:" + port + "/", "https://[::1]:" + port, "https://[::ffff:127.0.0.1]:" + port,
		"https://2130706433:" + port, "https://10.0.0.1/", "https://169.254.169.254/latest/meta-data", "https://[fd00::1]/",
		"https://no-such-host.invalid/",
	} {
		name := fmt.Sprintf("x%d", i)
		w.put("", name, target, nil)
		got, err := w.Test(t.Context(), "", name)
		if err != nil || got.Taken || got.Problem != "no connection" || got.Status != 0 {
			t.Errorf("test of %s = %+v, %v, want no connection", target, got, err)
		}
		hook, err := w.store.Webhook(t.Context(), "", name)
		if err != nil {
			t.Fatal(err)
		}
		detail = w.send(t.Context(), hook, "msg_1", nil).detail
		if i < 2 && !errors.Is(detail, sender.ErrPrivate) {
			t.Errorf("the operator is told %v of %s, want why it is refused", detail, target)
		}
		if strings.Contains(detail.Error(), "https://") {
			t.Errorf("the error %q has the URL", detail)
		}
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("a private receiver was reached %d times", n)
	}
}

// A receiver whose certificate is not right gets nothing.
func TestReceiverHasToProveItself(t *testing.T) {
	t.Parallel()
	var reached atomic.Int64
	url, roots := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	for _, tt := range []struct {
		url, problem string
		trusted      bool
	}{
		{url, "its certificate is of an authority that is not known here", false},
		{strings.Replace(url, "127.0.0.1", "localhost", 1), "its certificate is for another host", true},
	} {
		w := newWorld(t, openSQLite(t), hasty(), func(c *Config) {
			if c.Roots = roots; !tt.trusted {
				c.Roots = x509.NewCertPool()
			}
		})
		w.put("", "x", tt.url, nil)
		got, err := w.Test(t.Context(), "", "x")
		if err != nil || got.Taken || got.Problem != tt.problem {
			t.Errorf("test of %s = %+v, %v, want %q", tt.url, got, err, tt.problem)
		}
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("it got %d calls", n)
	}
}

// Two nodes on one database deliver everything once.
func TestTwoNodesDeliverOnce(t *testing.T) {
	t.Parallel()
	database := labtest.StartPostgreSQL(t).Database(t)
	r := newReceiver(t, nil)
	url, roots := serve(t, r)
	var nodes []*world
	for range 2 {
		st, err := store.OpenPostgres(t.Context(), database, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := st.Close(); err != nil {
				t.Error(err)
			}
		})
		nodes = append(nodes, newWorld(t, st, hasty(), func(c *Config) { c.Roots = roots }))
	}
	nodes[0].put("", "x", url, r)
	for _, w := range nodes {
		w.start()
	}
	names := domains(20)
	for n := 1; n <= 20; n++ {
		for _, name := range names {
			nodes[n%2].step("", name, n)
		}
	}
	r.await(400)
	if repeated := inOrder(t, r, 20, names...); repeated > 0 {
		t.Errorf("%d events came twice", repeated)
	}
	// What one stops with, the other goes on with at once.
	nodes[0].stop()
	for _, name := range names {
		nodes[1].step("", name, 21)
	}
	r.await(420)
	if repeated := inOrder(t, r, 21, names...); repeated > 0 {
		t.Errorf("%d events came twice", repeated)
	}
}

// Receivers may verify with the secret before for a day.
func TestRotation(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, nil)
	url, roots := serve(t, r)
	w := newWorld(t, openSQLite(t), hasty(), func(c *Config) { c.Roots = roots })
	old := w.put("", "x", url, nil)
	if !strings.HasPrefix(old.Secret, "whsec_") {
		t.Fatalf("secret %q", old.Secret)
	}
	same, added, err := w.Put(t.Context(), "", "x", Spec{URL: url}, old.ETag, false)
	if err != nil || added || same.Secret != "" || same.ETag != old.ETag {
		t.Errorf("put again = %+v, %t, %v, want it as it is, without its secret", same, added, err)
	}
	fresh, _, err := w.Put(t.Context(), "", "x", Spec{URL: url}, old.ETag, true)
	if err != nil || fresh.Secret == "" || fresh.Secret == old.Secret || fresh.ETag == old.ETag {
		t.Fatalf("rotate = %+v, %v", fresh, err)
	}
	if left := time.Until(fresh.OldSecret); left < 23*time.Hour || left > 24*time.Hour {
		t.Errorf("the old secret signs for %s", left)
	}
	if _, _, err := w.Put(t.Context(), "", "x", Spec{URL: url}, old.ETag, true); !errors.Is(err, store.ErrMismatch) {
		t.Errorf("rotate with the ETag before: %v", err)
	}
	r.expect(old.Secret, fresh.Secret)
	if got, err := w.Test(t.Context(), "", "x"); err != nil || !got.Taken {
		t.Errorf("test = %+v, %v", got, err)
	}
	all, _ := r.got()
	if len(all) != 1 || len(strings.Fields(all[0].header.Get("Webhook-Signature"))) != 2 || all[0].Type != KindTest {
		t.Errorf("calls %+v, want a test with two signatures", all)
	}
	hook, err := w.store.Webhook(t.Context(), "", "x")
	if err != nil {
		t.Fatal(err)
	}
	if s := sign(hook, "id", hook.OldUntil, nil); len(strings.Fields(s)) != 1 {
		t.Errorf("after a day: %s", s)
	}
}

func TestPutRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t, openSQLite(t), hasty(), nil)
	for _, tt := range []struct{ name, url, kind, want string }{
		{"x", "http://a.example/", "", "url: has to begin with https:// and a host"},
		{"x", "https:///x", "", "url: has to begin with https:// and a host"},
		{"x", "https://me:pass@a.example/", "", "url: has a user in it; calls are signed, and need no password"},
		{"x", "https://a.example/#top", "", "url: has a fragment (#…), which is not sent"},
		{"x", "https://a.example/" + strings.Repeat("x", maxURL), "", "url: is no URL; write one like https://panel.example.net/hooks"},
		{"x", "https://a.exam ple/", "", "url: is no URL; write one like https://panel.example.net/hooks"},
		{"X", "https://a.example/", "", `name: "X" is no name; up to 63 lower-case letters, digits and hyphens, none of these first or last`},
		{"x", "https://a.example/", "domain.stop", `kinds: there is no kind "domain.stop"; there are: `},
	} {
		spec := Spec{URL: tt.url}
		if tt.kind != "" {
			spec.Kinds = []string{tt.kind}
		}
		_, _, err := w.Put(t.Context(), "", tt.name, spec, "", false)
		if _, invalid := errors.AsType[*InvalidError](err); !invalid || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("put %q with %q %q: %v, want %s", tt.name, tt.url, tt.kind, err, tt.want)
		}
	}
	if _, _, err := w.Put(t.Context(), "", "x", Spec{URL: "https://a.example/"}, "*", false); !errors.Is(err, store.ErrMismatch) {
		t.Errorf("put with If-Match of none: %v", err)
	}
	for i := range store.MaxWebhooks {
		w.put("", fmt.Sprintf("w%d", i), "https://a.example/", nil)
	}
	if _, _, err := w.Put(t.Context(), "", "x", Spec{URL: "https://a.example/"}, "", false); !errors.Is(err, store.ErrTooMany) {
		t.Errorf("one more: %v", err)
	}
	if _, err := w.Test(context.Background(), "", "x"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("test of none: %v", err)
	}
}
