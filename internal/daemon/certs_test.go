package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/certs"
	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

// slow is an authority that never comes to an end.
type slow struct{}

func (slow) Name() string  { return "slow" }
func (slow) Staging() bool { return false }

func (slow) Obtain(ctx context.Context, _ certs.Request) (store.Certificate, error) {
	<-ctx.Done()
	return store.Certificate{}, ctx.Err()
}

func (slow) Window(context.Context, []byte) (certs.Window, error) {
	return certs.Window{}, certs.ErrNoRenewalInfo
}

// slowKeeper orders from slow alone until the test ends.
func slowKeeper(t *testing.T, budget config.Budget) certView {
	t.Helper()
	st, err := store.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "stspub.db"))
	if err != nil {
		t.Fatal(err)
	}
	keeper := certs.New(certs.Config{
		Store: st, Authorities: []certs.Authority{slow{}}, Budgets: []config.Budget{budget}, Log: slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- keeper.Run(ctx) }() // ends with ctx
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, st.Close()); err != nil {
			t.Error(err)
		}
	})
	return certView{keeper, "sts.provider.test"}
}

// A domain that waits for its certificate says whose turn it waits for, and until when.
func TestPlaceInTheQueueIsSaid(t *testing.T) {
	t.Parallel()
	budget := config.DefaultBudget()
	budget.InFlight = 1
	v := slowKeeper(t, budget)
	for _, name := range []string{"a", "b", "c"} {
		v.Want("mta-sts."+name+".test", "", false)
		until(t, "queue", func() error {
			if s := v.keeper.Status("mta-sts.a.test"); s.Waiting == "" {
				return fmt.Errorf("%+v", s)
			}
			return nil
		})
	}
	for name, want := range map[string]string{
		"a": "waiting for the certificate of mta-sts.a.test; its order is running",
		"c": "waiting for the certificate of mta-sts.c.test; its order is number 2 in the queue, expected to be sent at 20",
	} {
		if c := v.Cert("mta-sts." + name + ".test"); c.Valid || c.Fault || !strings.HasPrefix(c.Reason, want) {
			t.Errorf("certificate of %s: %+v, want %q", name, c, want)
		}
	}
}

// TestHeldNameSaysWhen: the domain of a customer has used its own limit up.
func TestHeldNameSaysWhen(t *testing.T) {
	t.Parallel()
	budget := config.DefaultBudget()
	budget.DomainOrders = 1
	v := slowKeeper(t, budget)
	const second = "mta-sts.b.customer.test"
	v.Want("mta-sts.a.customer.test", "", false)
	until(t, "order", func() error {
		if s := v.keeper.Status("mta-sts.a.customer.test"); s.Waiting == "" {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	v.Want(second, "", false)
	want := "waiting for the certificate of " + second + "; its order is expected to be sent at " +
		time.Now().Add(budget.DomainPeriod).UTC().Format("2006-01-02 15:")
	until(t, "hold", func() error {
		if c := v.Cert(second); !strings.HasPrefix(c.Reason, want) || !strings.Contains(c.Reason, "1 orders for customer.test in 7 days are used up") {
			return fmt.Errorf("%+v, want %q", c, want)
		}
		return nil
	})
}

// What a staging CA issues is served and not announced; once the same table names a real one, it is replaced at once.
func TestStagingIsNotAnnounced(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.file("stspub.toml", w.config("[acme.lab]", "[acme.lab]\nstaging = true"))
	r := w.start(w.path("stspub.toml"))
	const why = `the certificate for mta-sts.zoned.test is of the staging CA "lab", which no sender trusts`
	until(t, "hold", func() error {
		s, err := r.admin.Domain(context.Background(), zoned)
		if err == nil && (s.Step != publish.StepCert || !s.Fault || !strings.HasPrefix(s.Reason, why)) {
			err = fmt.Errorf("step %s, fault %v: %s", s.Step, s.Fault, s.Reason)
		}
		if err == nil && (s.ID != "" || s.Intended != "") {
			t.Errorf("announced: %+v", s)
		}
		return err
	})
	var lines []certs.Named
	err := r.admin.CertificateNames(context.Background(), true, func(n certs.Named) error {
		lines = append(lines, n)
		return nil
	})
	if err != nil || len(lines) != 2 || !lines[0].Staging || lines[0].State != certs.StateValid {
		t.Errorf("certificates %+v, %v", lines, err)
	}
	if o, err := r.admin.Certificates(context.Background()); err != nil || o.Names != 2 || o.Valid != 0 || o.Staging == 0 || o.Staging+o.Waiting != 2 {
		t.Errorf("overview %+v, %v", o, err)
	}
	r.stop()

	w.file("stspub.toml", w.config())
	r = w.start(w.path("stspub.toml"))
	r.live(time.Time{})
	w.serves()
	o, err := r.admin.Certificates(context.Background())
	if err != nil || o.Names != 2 || o.Accounts[0].Staging {
		t.Errorf("overview %+v, %v", o, err)
	}
	r.stop()
}
