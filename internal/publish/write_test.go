package publish

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestEnter has more writes come than an account takes at once: they wait where it is quick, and are sent away where not.
func TestEnter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(Config{})
		ctx := t.Context()
		var leaves []func()
		fill := func() {
			t.Helper()
			for range places {
				leave, err := r.enter(ctx, key{Tenant, "main"})
				if err != nil {
					t.Fatal(err)
				}
				leaves = append(leaves, leave)
			}
		}
		leave := func(n int) {
			for _, f := range leaves[:n] {
				f()
			}
			leaves = leaves[n:]
		}
		waits := func(want time.Duration, busy bool) {
			t.Helper()
			begun := time.Now()
			f, err := r.enter(ctx, key{Tenant, "main"})
			if took := time.Since(begun); took != want || errors.Is(err, errBusy) != busy {
				t.Errorf("enter: %v after %v, want busy %t after %v", err, took, busy, want)
			}
			if err == nil {
				f()
			}
		}

		fill()
		waits(0, true) // nobody knows it yet
		if other, err := r.enter(ctx, key{Tenant, "other"}); err != nil {
			t.Errorf("another account: %v", err)
		} else {
			other()
		}
		time.Sleep(300 * time.Millisecond) // in the bubble
		leave(lap)
		for range lap {
			f, err := r.enter(ctx, key{Tenant, "main"})
			if err != nil {
				t.Fatal(err)
			}
			leaves = append(leaves, f)
		}
		first := leaves[0]
		leaves = leaves[1:]
		time.AfterFunc(200*time.Millisecond, first)
		waits(200*time.Millisecond, false)
		f, err := r.enter(ctx, key{Tenant, "main"})
		if err != nil {
			t.Fatal(err)
		}
		leaves = append(leaves, f)
		waits(lapTime, true) // it hangs
		waits(0, true)       // as is known now
		leave(places)
		waits(0, false)
	})
}
