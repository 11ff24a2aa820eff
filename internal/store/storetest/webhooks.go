package storetest

import (
	"fmt"
	"sync"
	"time"

	"github.com/stspub/stspub/internal/store"
)

func webhookTests() map[string]func(*env) {
	return map[string]func(*env){
		"Webhook/ComesBackAsAdded":            webhookAdded,
		"Webhook/ChangesByItsETag":            webhookChanged,
		"Webhook/NoMoreThanTwenty":            webhookLimit,
		"Webhook/LeavesWithItsTenant":         webhookTenant,
		"Webhook/BeginsWithWhatComes":         webhookBegins,
		"Webhook/HearsOfItsTenant":            webhookApart,
		"Webhook/NobodyElseUntilTheLeaseEnds": webhookLease,
		"Webhook/AtTheSameTimeOnceEach":       webhookConcurrent,
		"Webhook/WaitsAsSaved":                webhookWaits,
		"Webhook/ChangedWhileClaimed":         webhookMeanwhile,
		"Webhook/ResumesAtOnce":               webhookResumes,
		"Webhook/FreeAfterARestart":           webhookRestart,
		"Webhook/Failing":                     webhookFailing,
		"Webhook/SealedAndResealed":           webhookSealed,
		"Webhook/ChangesAreEvents":            webhookEvents,
		"Webhook/ForgottenEventsAreCounted":   webhookForgotten,
	}
}

// lease is longer than any test.
const lease = time.Hour

// webhook adds one of a tenant at minute 0.
func (e *env) webhook(tenant, name string) store.Webhook {
	e.Helper()
	w := store.Webhook{
		Tenant: tenant, Name: name, URL: "https://hooks.example/" + name, Secret: []byte{1, 0, 0xff}, Created: at(0),
	}
	e.must(e.AddWebhook(e.ctx(), w, at(0)))
	return e.readWebhook(tenant, name)
}

func (e *env) readWebhook(tenant, name string) store.Webhook {
	e.Helper()
	w, err := e.Webhook(e.ctx(), tenant, name)
	e.must(err)
	return w
}

// happens keeps an event of a tenant, and returns its number.
func (e *env) happens(tenant string) int64 {
	e.Helper()
	e.must(e.AppendEvents(e.ctx(), []store.Event{{Tenant: tenant, Kind: store.KindDomainStep, Name: "a.example", Text: "it happened"}}))
	last, err := e.LastChange(e.ctx())
	e.must(err)
	return last
}

// claimWebhooks returns what is due by tenant and name.
func (e *env) claimWebhooks(n int) map[string]store.Webhook {
	e.Helper()
	all, now, err := e.ClaimWebhooks(e.ctx(), lease, n)
	e.must(err)
	if d := time.Since(now).Abs(); d > time.Minute {
		e.Errorf("the time is %s, which is %s away", now, d)
	}
	byName := make(map[string]store.Webhook)
	for _, w := range all {
		byName[w.Tenant+"/"+w.Name] = w
	}
	return byName
}

func (e *env) claimed(what string, n int, want ...string) map[string]store.Webhook {
	e.Helper()
	got := e.claimWebhooks(n)
	for _, name := range want {
		if _, ok := got[name]; !ok {
			e.Errorf("%s: %q is not claimed", what, name)
		}
	}
	if len(got) != len(want) {
		e.Errorf("%s: %d are claimed, want %q", what, len(got), want)
	}
	return got
}

func webhookAdded(e *env) {
	e.tenant("a")
	want := store.Webhook{
		Tenant: "a", Name: "x", URL: "https://hooks.example/ü?k=1", Kinds: []string{"domain.fault", "domain.step"}, Secret: []byte{1, 0, 0xff},
		Old: []byte("old"), OldUntil: at(60), Created: at(3),
	}
	e.must(e.AddWebhook(e.ctx(), want, at(3)))
	e.is(e.AddWebhook(e.ctx(), want, at(4)), store.ErrExists, `"x"`)
	e.webhook("", "x")
	e.webhook("a", "b")
	e.reopen()
	got := e.readWebhook("a", "x")
	want.Version, want.Delivery.Reached = got.Version, got.Delivery.Reached
	e.equal("webhook", got, want)
	all, err := e.Webhooks(e.ctx(), "a")
	e.must(err)
	e.equal("of a tenant", []string{all[0].Name, all[1].Name}, []string{"b", "x"})
	all, err = e.Webhooks(e.ctx(), "")
	e.must(err)
	e.equal("of the service", len(all), 1)
	_, err = e.Webhook(e.ctx(), "a", "nowhere")
	e.is(err, store.ErrNotFound, `"nowhere"`)
	e.is(e.AddWebhook(e.ctx(), store.Webhook{Tenant: "nobody", Name: "x"}, at(4)), store.ErrNotFound, `"nobody"`)
}

func webhookChanged(e *env) {
	w := e.webhook("", "x")
	etag := w.ETag()
	other := w
	other.Secret, other.Old, other.OldUntil, other.Kinds = []byte("new"), w.Secret, at(90), []string{"domain.step"}
	e.is(e.ChangeWebhook(e.ctx(), other, "other", at(1)), store.ErrMismatch, `"x"`)
	e.must(e.ChangeWebhook(e.ctx(), other, etag, at(1)))
	got := e.readWebhook("", "x")
	e.equal("changed", []any{got.Secret, got.Old, got.OldUntil, got.Kinds, got.Delivery}, []any{other.Secret, w.Secret, at(90), other.Kinds, w.Delivery})
	if got.ETag() == etag || got.Version == w.Version {
		e.Errorf("ETag %s and version %d are what they were", etag, w.Version)
	}
	e.is(e.ChangeWebhook(e.ctx(), other, etag, at(1)), store.ErrMismatch)
	e.is(e.DeleteWebhook(e.ctx(), "", "x", etag, at(2)), store.ErrMismatch)
	e.must(e.DeleteWebhook(e.ctx(), "", "x", got.ETag(), at(2)))
	e.is(e.DeleteWebhook(e.ctx(), "", "x", "", at(2)), store.ErrNotFound, `"x"`)
	e.is(e.DeleteWebhook(e.ctx(), "", "x", "*", at(2)), store.ErrMismatch)
	e.is(e.ResumeWebhook(e.ctx(), "", "x", at(2)), store.ErrNotFound)
}

func webhookLimit(e *env) {
	e.tenant("a")
	var adds sync.WaitGroup
	var mu sync.Mutex
	refused := 0
	for i := range store.MaxWebhooks + 3 {
		adds.Go(func() {
			if err := e.AddWebhook(e.ctx(), store.Webhook{Tenant: "a", Name: fmt.Sprintf("w%d", i), Created: at(0)}, at(0)); err != nil {
				mu.Lock()
				defer mu.Unlock()
				e.is(err, store.ErrTooMany)
				refused++
			}
		})
	}
	adds.Wait()
	e.equal("refused", refused, 3)
	e.webhook("", "w1") // another's count for themselves
}

func webhookTenant(e *env) {
	e.tenant("a")
	e.tenant("b")
	e.webhook("a", "x")
	e.webhook("b", "x")
	e.must(e.DeleteTenant(e.ctx(), "a", "", at(1)))
	_, err := e.Webhook(e.ctx(), "a", "x")
	e.is(err, store.ErrNotFound)
	e.readWebhook("b", "x")
}

func webhookBegins(e *env) {
	e.happens("")
	w := e.webhook("", "x")
	e.equal("with what was before", w.Delivery.Reached > 0, true)
	// That it was added is an event, which comes after.
	e.claimed("its own beginning", 9, "/x")
	w.Delivery.Reached = e.happens("")
	e.must(e.SaveWebhook(e.ctx(), w, 0))
	e.claimed("when it has seen all", 9)
	e.happens("")
	e.claimed("when something happened", 9, "/x")
}

// reachedAll has all webhooks be where the store is.
func (e *env) reachedAll() {
	e.Helper()
	for _, w := range e.claimWebhooks(100) {
		last, err := e.LastChange(e.ctx())
		e.must(err)
		w.Delivery.Reached = last
		e.must(e.SaveWebhook(e.ctx(), w, 0))
	}
}

func webhookApart(e *env) {
	e.tenant("a")
	e.tenant("b")
	e.webhook("a", "x")
	e.webhook("b", "x")
	e.webhook("", "x")
	e.reachedAll()
	e.claimed("nothing happened", 9)
	e.happens("b")
	for _, w := range e.claimed("of one tenant", 9, "b/x", "/x") {
		w.Delivery.Reached = e.happens("nobody-hears")
		e.must(e.SaveWebhook(e.ctx(), w, 0))
	}
	e.reachedAll()
	e.happens("")
	e.claimed("of the service", 9, "/x")
}

func webhookLease(e *env) {
	e.webhook("", "x")
	e.webhook("", "y")
	first := e.claimWebhooks(1)
	e.equal("not more than asked", len(first), 1)
	second := e.claimWebhooks(9)
	e.equal("the other", len(second), 1)
	e.claimed("nobody else", 9)
	for _, w := range first {
		e.must(e.SaveWebhook(e.ctx(), w, time.Microsecond))
	}
	for name := range first {
		e.claimed("after the lease", 9, name)
	}
	for _, w := range second {
		e.must(e.SaveWebhook(e.ctx(), w, lease))
		e.claimed("prolonged", 9)
		e.must(e.DeleteWebhook(e.ctx(), "", w.Name, "", at(1)))
		e.is(e.SaveWebhook(e.ctx(), w, lease), store.ErrStale, fmt.Sprintf("%q", w.Name))
	}
}

func webhookConcurrent(e *env) {
	for i := range store.MaxWebhooks {
		e.webhook("", fmt.Sprintf("w%d", i))
	}
	var mu sync.Mutex
	seen := make(map[string]int)
	var claims sync.WaitGroup
	for range 8 {
		claims.Go(func() {
			for range 4 {
				all, _, err := e.ClaimWebhooks(e.ctx(), lease, 5)
				if err != nil {
					e.Error(err)
				}
				mu.Lock()
				for _, w := range all {
					seen[w.Name]++
				}
				mu.Unlock()
			}
		})
	}
	claims.Wait()
	for name, n := range seen {
		if n != 1 {
			e.Errorf("%s was claimed %d times", name, n)
		}
	}
	// Who skips what another looks at finds it the next time.
	e.equal("all", len(seen)+len(e.claimWebhooks(99)), store.MaxWebhooks)
}

func webhookWaits(e *env) {
	e.webhook("", "x")
	e.reachedAll()
	seq := e.happens("")
	w := e.claimed("when something happened", 9, "/x")["/x"]
	now, err := e.Now(e.ctx())
	e.must(err)
	w.Delivery = store.Delivery{
		Reached: seq, Since: at(1), Problem: "it answered 500 \x00\xff", Failures: 3, Lost: 2, Delivered: at(2), Due: now.Add(time.Hour), Rest: now.Add(2 * time.Hour),
		Held: []store.HeldEvent{{Tenant: "t", Name: "a.example", Seq: seq, Since: at(1), Tries: 3, Due: now.Add(time.Hour)}},
	}
	e.must(e.SaveWebhook(e.ctx(), w, 0))
	e.reopen()
	got := e.readWebhook("", "x")
	w.Delivery.Problem = "it answered 500 \uFFFD\uFFFD"
	e.equal("saved", got.Delivery, w.Delivery)
	e.happens("")
	e.claimed("while it rests", 9)
	e.must(e.ResumeWebhook(e.ctx(), "", "x", at(3)))
	w = e.claimed("resumed", 9, "/x")["/x"]
	w.Delivery.Due, w.Delivery.Rest = now.Add(-time.Second), now.Add(time.Hour)
	e.must(e.SaveWebhook(e.ctx(), w, 0))
	w = e.claimed("when what is held is due", 9, "/x")["/x"]
	w.Delivery.Due, w.Delivery.Rest = now.Add(time.Hour), now.Add(-time.Second)
	e.must(e.SaveWebhook(e.ctx(), w, 0))
	w = e.claimed("when the rest is over", 9, "/x")["/x"]
	w.Delivery.Due, w.Delivery.Rest, w.Delivery.Paused = now.Add(-time.Second), time.Time{}, true
	e.must(e.SaveWebhook(e.ctx(), w, 0))
	e.claimed("while it pauses", 9)
}

func webhookMeanwhile(e *env) {
	e.webhook("", "x")
	w := e.claimed("added", 9, "/x")["/x"]
	now, err := e.Now(e.ctx())
	e.must(err)
	changed := w
	changed.Kinds = []string{"domain.fault"}
	e.must(e.ChangeWebhook(e.ctx(), changed, w.ETag(), at(1)))
	w.Delivery.Reached, w.Delivery.Failures, w.Delivery.Lost, w.Delivery.Paused = w.Delivery.Reached+1, 7, 1, true
	w.Delivery.Due, w.Delivery.Rest = now.Add(lease), now.Add(lease)
	w.Delivery.Held = []store.HeldEvent{{Name: "a.example", Seq: 1, Tries: 7, Due: now.Add(lease)}}
	e.is(e.SaveWebhook(e.ctx(), w, lease), store.ErrStale, `"x"`)
	e.equal("what its holder has", w.Delivery.Held[0].Due, now.Add(lease))
	got := e.claimed("changed", 9, "/x")["/x"]
	d := got.Delivery
	e.equal("as changed", got.Kinds, changed.Kinds)
	e.equal("with what was done", []any{d.Reached, d.Lost, d.Failures, d.Paused, d.Rest, len(d.Held)}, []any{w.Delivery.Reached, int64(1), 0, false, time.Time{}, 1})
	if d.Held[0].Due.After(time.Now().Add(time.Minute)) {
		e.Errorf("what is held is due %s", d.Held[0].Due)
	}
}

func webhookResumes(e *env) {
	e.webhook("", "x")
	w := e.claimed("added", 9, "/x")["/x"]
	w.Delivery.Paused, w.Delivery.Problem, w.Delivery.Failures = true, "it answered 410 Gone", 1
	w.Delivery.Held = []store.HeldEvent{{Name: "a.example", Seq: 1, Due: time.Now().UTC().Add(lease)}}
	e.must(e.SaveWebhook(e.ctx(), w, 0))
	e.claimed("paused", 9)
	same := e.readWebhook("", "x")
	e.must(e.ChangeWebhook(e.ctx(), same, same.ETag(), at(1)))
	e.claimed("with the same URL", 9)
	other := same
	other.URL = "https://elsewhere.example/"
	e.must(e.ChangeWebhook(e.ctx(), other, same.ETag(), at(1)))
	got := e.claimed("with another URL", 9, "/x")["/x"]
	e.equal("it goes on", []any{got.Delivery.Paused, got.Delivery.Failures, got.URL}, []any{false, 0, other.URL})
}

func webhookRestart(e *env) {
	e.webhook("", "x")
	e.must(e.Beat(e.ctx(), store.Node{ID: "n"}))
	e.claimed("added", 9, "/x")
	e.reopen()
	e.must(e.Beat(e.ctx(), store.Node{ID: "n"}))
	e.claimed("after a restart of its node", 9, "/x")
}

func webhookFailing(e *env) {
	e.tenant("a")
	for _, name := range []string{"good", "fails", "pauses"} {
		e.webhook("a", name)
	}
	for _, w := range e.claimWebhooks(9) {
		switch w.Name {
		case "fails":
			w.Delivery.Since, w.Delivery.Problem = at(5), "no connection"
		case "pauses":
			w.Delivery.Paused = true
		}
		e.must(e.SaveWebhook(e.ctx(), w, 0))
	}
	got, err := e.FailingWebhooks(e.ctx())
	e.must(err)
	e.equal("failing", got, []store.Webhook{
		{Tenant: "a", Name: "fails", Delivery: store.Delivery{Since: at(5), Problem: "no connection"}},
		{Tenant: "a", Name: "pauses", Delivery: store.Delivery{Paused: true}},
	})
}

func webhookSealed(e *env) {
	e.tenant("a")
	plain := e.webhook("a", "x")
	service := e.webhook("", "x")
	e.reopenWith(1)
	e.reseals(2)
	e.reopenWith(2, 1)
	e.equal("under the old key", e.readWebhook("a", "x"), plain)
	e.reseals(2)
	e.reopenWith(2)
	e.equal("under the new key", []store.Webhook{e.readWebhook("a", "x"), e.readWebhook("", "x")}, []store.Webhook{plain, service})
}

func webhookEvents(e *env) {
	w := e.webhook("", "x")
	other := w
	other.URL, other.Secret, other.Kinds = "https://elsewhere.example/key", []byte("very secret"), []string{"domain.fault"}
	e.must(e.ChangeWebhook(e.ctx(), w, w.ETag(), at(1)))
	e.must(e.ChangeWebhook(e.ctx(), other, w.ETag(), at(2)))
	e.must(e.ResumeWebhook(e.ctx(), "", "x", at(3)))
	e.must(e.DeleteWebhook(e.ctx(), "", "x", "", at(4)))
	events, err := e.Events(e.ctx(), store.EventFilter{Name: "x"}, 0, 9)
	e.must(err)
	var got []string
	for _, ev := range events {
		got = append(got, fmt.Sprintf("%s %s %s %s", ev.Kind, ev.Text, ev.Before, ev.After))
	}
	e.equal("events", got, []string{
		`webhook.added added  {"host":"hooks.example"}`,
		`webhook.changed changed, with another secret {"host":"hooks.example"} {"host":"elsewhere.example","kinds":["domain.fault"]}`,
		`webhook.changed resumed  `,
		`webhook.removed removed {"host":"elsewhere.example","kinds":["domain.fault"]} `,
	})
}
