package publish_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/dnsupdate"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

// live counts the domains that rest at live with a policy that names an MX, and no more than one id beside the first.
func (w *world) live(names []policygen.Name, mx string) int {
	n := 0
	for _, name := range names {
		if s := w.status(name); s.Step == publish.StepLive && strings.Contains(s.Policy, mx) {
			n++
		}
	}
	return n
}

// TestAPIDownForAnHour takes the DNS API away in the middle of a thousand rotations.
func TestAPIDownForAnHour(t *testing.T) {
	var names []policygen.Name
	for i := range 1000 {
		names = append(names, policygen.Name(fmt.Sprintf("d%03d.example", i)))
	}
	w := newWorld(t, names...)
	w.conf.Check.Every = 24 * time.Hour
	run(t, w, func(w *world) {
		w.pass(30 * time.Minute)
		if n := w.live(names, "mx1."); n != len(names) {
			t.Fatalf("%d of %d domains live", n, len(names))
		}
		first := w.writes()
		w.change(func() { w.quota = 301 }) // then it is gone
		w.reconfigure(setMX(policygen.Enforce, "mx2.provider.test"))
		w.pass(time.Hour)
		down := w.writes() - first
		if n := w.live(names, "mx2."); n != 300 {
			t.Errorf("%d domains rotated before the API went away, want 300", n)
		}
		if down > 300+700*10 { // a pause of a minute at first, of a quarter of an hour at last
			t.Errorf("%d calls while the API was down for an hour", down)
		}
		w.change(func() { w.quota = 0 })
		w.pass(30 * time.Minute)
		if n := w.live(names, "mx2."); n != len(names) {
			t.Errorf("%d of %d domains rotated after the API came back", n, len(names))
		}
		for _, name := range names {
			ids, err := w.store.IDs(w.ctx, name.RecordName())
			if err != nil || len(ids) != 2 {
				t.Fatalf("%s had %d ids, %v, want one a policy", name, len(ids), err)
			}
		}
		if n := w.writes() - first - down; n > 700+50 {
			t.Errorf("%d calls for the 700 that were left", n)
		}
	})
}

// TestOneAccountDelaysNoOther has an account hang while another works.
func TestOneAccountDelaysNoOther(t *testing.T) {
	w := newWorld(t)
	w.conf.Accounts["slow"] = config.Account{Name: "slow"}
	w.conf.Check.Every = 24 * time.Hour
	var good []policygen.Name
	for i := range 720 {
		name, account := policygen.Name(fmt.Sprintf("a%04d.example", i)), "slow"
		if i%60 == 59 {
			account = "main"
			good = append(good, name)
		}
		w.conf.Domains = append(w.conf.Domains, config.Domain{Name: name, MXSet: "eu", Publish: store.PublishZone, Account: account})
	}
	w.hangs = "slow"
	run(t, w, func(w *world) {
		w.pass(5*time.Minute + 20*time.Second) // the settle time, and a little
		if n := w.live(good, "mx1."); n != len(good) {
			t.Errorf("%d of %d domains at the good account are live beside 708 at one that hangs", n, len(good))
		}
	})
}

// readOnly is a store that can be made to refuse all writes.
type readOnly struct {
	store.Store
	w *world
}

var errReadOnly = errors.New("attempt to write a readonly database")

func (r readOnly) err() error {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	if r.w.readOnly {
		return errReadOnly
	}
	return nil
}

func (r readOnly) Claim(ctx context.Context, now time.Time, lease time.Duration, n int, but ...string) ([]store.Domain, error) {
	if err := r.err(); err != nil {
		return nil, err
	}
	return r.Store.Claim(ctx, now, lease, n, but...)
}

func (r readOnly) Save(ctx context.Context, d *store.Domain, now time.Time) error {
	if err := r.err(); err != nil {
		return err
	}
	return r.Store.Save(ctx, d, now)
}

func (r readOnly) EachShared(ctx context.Context, tenant, mxset string, f func(store.Domain) error) error {
	err := r.Store.EachShared(ctx, tenant, mxset, f)
	r.w.mu.Lock()
	then := r.w.onceRead
	r.w.onceRead = nil
	r.w.mu.Unlock()
	if then != nil {
		then()
	}
	return err
}

func (r readOnly) Declare(ctx context.Context, d store.Declaration, now time.Time) (store.Change, error) {
	if err := r.err(); err != nil {
		return store.Change{}, err
	}
	return r.Store.Declare(ctx, d, now)
}

// TestReadOnlyStore has the store refuse writes for an hour: what is served stays, it is said, and work goes on after.
func TestReadOnlyStore(t *testing.T) {
	names := []policygen.Name{"a.example", "b.example"}
	inBubble(t, names, func(w *world) {
		w.reach("a.example", publish.StepLive, time.Hour)
		w.reconfigure(setMX(policygen.Enforce, "mx2.provider.test"))
		w.pass(time.Minute) // in the settle time
		w.change(func() { w.readOnly = true })
		w.pass(time.Hour)
		if _, err := w.reload(w.plan().Hash); !errors.Is(err, errReadOnly) {
			t.Errorf("reload: %v, want %v", err, errReadOnly)
		}
		for _, name := range names {
			if page, ok := w.snapshot.Policy(name.PolicyHost()); !ok || !strings.Contains(page.Text, "mx2.") {
				t.Errorf("%s serves %v, %v", name, page, ok)
			}
		}
		if got := strings.Join(w.faults(), "; "); !strings.Contains(got, "store: the store does not answer: attempt to write a readonly database; serving goes on") {
			t.Errorf("faults: %s", got)
		}
		n := w.writes()
		w.change(func() { w.readOnly = false })
		w.pass(10 * time.Minute)
		if got := w.live(names, "mx2."); got != 2 || w.writes() != n+2 {
			t.Errorf("%d live and %d writes when it was writable again, want 2 and 2", got, w.writes()-n)
		}
		for _, f := range w.faults() {
			if strings.HasPrefix(f, "store: ") {
				t.Errorf("still a fault: %s", f)
			}
		}
	})
}

// TestStoreLostInAPass has the store refuse writes while a record is written. The pass cannot keep how that went; its claim
// ends with the trouble, and not only when its lease is over.
func TestStoreLostInAPass(t *testing.T) {
	inBubble(t, []policygen.Name{"a.example"}, func(w *world) {
		w.reach("a.example", publish.StepLive, time.Hour)
		w.reconfigure(setMX(policygen.Enforce, "mx2.provider.test"))
		before := w.reach("a.example", publish.StepSettle, time.Minute)
		w.change(func() { w.hangs = "main" })
		w.pass(5*time.Minute + 10*time.Second) // it writes, and waits for an answer
		w.change(func() { w.readOnly = true })
		w.pass(time.Minute)
		if got := strings.Join(w.faults(), "; "); !strings.Contains(got, "store: the store does not answer: ") {
			t.Errorf("faults: %s", got)
		}
		if s := w.status("a.example"); s.Step != before.Step {
			t.Fatalf("step %s, want %s as kept last", s.Step, before.Step)
		}
		w.change(func() { w.readOnly, w.hangs = false, "" })
		w.pass(20 * time.Second)
		if s := w.status("a.example"); s.Step == before.Step {
			t.Errorf("step %s, want that it was looked at again", s.Step)
		}
		if got := w.faults(); len(got) > 0 {
			t.Errorf("faults: %s", got)
		}
		w.pass(2 * time.Minute)
		if got := w.live([]policygen.Name{"a.example"}, "mx2."); got != 1 {
			t.Errorf("%+v, want it live", w.status("a.example"))
		}
	})
}

// account is one of the world's DNS accounts.
type account struct {
	*world
	name string
}

func (a account) Name() string { return a.name }

func (a account) Apply(ctx context.Context, c dnsupdate.Change) error {
	a.mu.Lock()
	hangs := a.hangs != "" && strings.HasPrefix(a.name, a.hangs)
	a.asked = append(a.asked, a.name+" "+c.Name)
	a.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return &dnsupdate.Error{Account: a.name, Op: "write", Kind: dnsupdate.KindUnavailable, Err: ctx.Err()}
	}
	return a.world.Apply(ctx, c)
}

// TestWakingAllWritesNothing does what follows when the clock was set back: everything is looked at again.
func TestWakingAllWritesNothing(t *testing.T) {
	names := []policygen.Name{"a.example", "b.example"}
	inBubble(t, names, func(w *world) {
		w.reach("a.example", publish.StepLive, time.Hour)
		w.reach("b.example", publish.StepLive, time.Hour)
		n := w.writes()
		for range 20 {
			if err := w.rec.Wake(w.ctx, ""); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if w.writes() != n {
			t.Errorf("%d writes", w.writes()-n)
		}
	})
}
