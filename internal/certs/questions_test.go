package certs_test

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stspub/stspub/internal/certs"
)

// TestLostAnswersCostNoOtherQuestion: all windows are asked for within the time that a round of questions takes, although
// every hundredth answer is lost, or the authority is away for ten minutes of each hour. Those lost last are asked again later.
func TestLostAnswersCostNoOtherQuestion(t *testing.T) {
	t.Parallel()
	for what, lost := range map[string]func(asked int, since time.Duration) bool{
		"some":            func(asked int, _ time.Duration) bool { return asked%100 == 0 },
		"all for a while": func(_ int, since time.Duration) bool { return since < 10*time.Minute },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const names = 3000
				begun := time.Now()
				asked, silent := 0, 0
				answered := make(map[string]bool)
				m, mint, b := &model{}, newMint(t), newBooks()
				var mu sync.Mutex
				m.window = func(leaf []byte) (certs.Window, error) {
					mu.Lock()
					defer mu.Unlock()
					if asked++; lost(asked, time.Since(begun)%time.Hour) {
						silent++
						return certs.Window{}, errors.New("connection reset")
					}
					answered[string(leaf)] = true
					from, _, err := mint.times(leaf)
					return certs.Window{Start: from.Add(60 * day), End: from.Add(62 * day), Retry: 6 * time.Hour}, err
				}
				for n := range names {
					b.certs[host(n)] = mint.issueBy(m.Name(), host(n), begun.Add(-day), begun.Add(89*day))
				}
				k, stop := run(t, b, m)
				defer stop()
				for n := range names {
					k.Want(host(n), true)
				}
				time.Sleep(7*time.Hour + 59*time.Minute)
				mu.Lock()
				defer mu.Unlock()
				if n := len(answered); n < names*98/100 || silent == 0 || asked > names+names/2 {
					t.Errorf("after %d questions, %d of them in vain, %d of %d names have a window", asked, silent, n, names)
				}
			})
		})
	}
}
