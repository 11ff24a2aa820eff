package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stspub/stspub/internal/policygen"
)

// TestGroupedWritesAreTheirOwn has writes wait for each other until they go together: one of them fails, and one is given up.
func TestGroupedWritesAreTheirOwn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := openTest(t)
		const n = 40
		d := Declaration{Owner: OwnerFile, MXSets: []MXSet{{Tenant: "default", Name: "eu"}}}
		for i := range n {
			d.Domains = append(d.Domains, Domain{Name: policygen.Name(fmt.Sprintf("d%02d.example", i)), Tenant: "default", MXSet: "eu"})
		}
		if _, err := s.Declare(t.Context(), d, time.Now()); err != nil {
			t.Fatal(err)
		}
		hold, err := s.writer.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		given, giveUp := context.WithCancel(t.Context())
		errs, saved := make([]error, n), make([]Domain, n)
		var wg sync.WaitGroup
		for i, d := range d.Domains {
			wg.Go(func() {
				ctx := t.Context()
				if saved[i], errs[i] = s.Domain(ctx, d.Name); errs[i] != nil {
					return
				}
				saved[i].State.Step = "saved"
				switch i {
				case 0: // goes alone, as it finds nobody
				case 7:
					saved[i].Version--
				case 8:
					ctx = given
				}
				errs[i] = s.Save(ctx, &saved[i], time.Now())
			})
			synctest.Wait() // they come in order
		}
		giveUp()
		synctest.Wait()
		s.group.mu.Lock()
		if got, want := len(s.group.waiting), n-2; got != want {
			t.Errorf("%d writes wait for the first, want %d", got, want)
		}
		s.group.mu.Unlock()
		if err := hold.Rollback(); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		for i, d := range d.Domains {
			want := error(nil)
			switch i {
			case 7:
				want = ErrStale
			case 8:
				want = context.Canceled
			}
			if !errors.Is(errs[i], want) {
				t.Errorf("Save(%s): error is %v, want %v", d.Name, errs[i], want)
			}
			got, err := s.Domain(t.Context(), d.Name)
			if err != nil || (got.State.Step == "saved") != (want == nil) || want == nil && got.Version != saved[i].Version {
				t.Errorf("%s is at version %d, step %q, %v; Save gave version %d", d.Name, got.Version, got.State.Step, err, saved[i].Version)
			}
		}
	})
}
