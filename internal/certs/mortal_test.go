package certs_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stspub/stspub/internal/certs"
	"github.com/stspub/stspub/internal/store"
)

// mortal is the store of one process, which is killed at a write: nothing that it writes from then on gets there.
type mortal struct {
	*books

	mu      sync.Mutex
	at      string // the kind of write that it is killed at; empty: it is not
	skip    int    // so many of them go well before
	arrives bool   // that write does get there
	killed  bool
	dead    chan struct{} // closed then
}

var errKilled = errors.New("the process is killed")

// kill has the process killed at a write.
func (m *mortal) kill(at string, arrives bool, skip int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.at, m.arrives, m.skip = at, arrives, skip
}

func (m *mortal) write(kind string, f func() error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.killed {
		return errKilled
	}
	if kind != m.at {
		return f()
	}
	if m.skip--; m.skip >= 0 {
		return f()
	}
	m.killed = true
	close(m.dead)
	if !m.arrives {
		return errKilled
	}
	return errors.Join(f(), errKilled)
}

func (m *mortal) AppendJournal(ctx context.Context, last int64, e *store.JournalEntry) error {
	return m.write("append", func() error { return m.books.AppendJournal(ctx, last, e) })
}

func (m *mortal) EndJournal(ctx context.Context, e store.JournalEntry) error {
	return m.write("end", func() error { return m.books.EndJournal(ctx, e) })
}

func (m *mortal) PruneJournal(ctx context.Context, counted, exempt, now time.Time) error {
	return m.write("prune", func() error { return m.books.PruneJournal(ctx, counted, exempt, now) })
}

func (m *mortal) SaveCertificate(ctx context.Context, c store.Certificate) error {
	return m.write("save", func() error { return m.books.SaveCertificate(ctx, c) })
}

func (m *mortal) SaveOrder(ctx context.Context, o store.Order) error {
	return m.write("order", func() error { return m.books.SaveOrder(ctx, o) })
}

// departed is an authority that a process which is dead does not reach.
type departed struct {
	certs.Authority
	dead <-chan struct{}
}

func (d departed) Obtain(ctx context.Context, r certs.Request) (store.Certificate, error) {
	select {
	case <-d.dead:
		return store.Certificate{}, errKilled
	default:
		return d.Authority.Obtain(ctx, r)
	}
}

// TestYearWithRestarts has a process end every two weeks, and five times while the first certificates are issued: by its
// own will in the middle of an order, or killed at a write, which got into the store or did not. The limits are whole, as
// what a process has in flight is.
func TestYearWithRestarts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		y := newYear(t, 1)
		y.ca.broken = func(name string, now time.Time) bool { return share(name, now, 7*day, 100) } // so that some orders fail
		y.start()
		ends, vanish := 0, 0
		restart := func(at string, arrives bool) {
			ends++
			if at == "" {
				y.ca.ordering()
				time.Sleep(time.Second)
			} else {
				y.mortal.kill(at, arrives, ends%4)
				select {
				case <-y.mortal.dead:
				case <-time.After(46 * day): // for so long nothing is to be renewed at first
					t.Fatalf("day %d: it is not killed at %s", y.ca.day(time.Now()), at)
				}
			}
			if at == "save" && !arrives {
				vanish++
			}
			if err := y.stop(); err != nil {
				t.Error(err)
			}
			y.books.abandon()
			y.start()
		}
		kinds := []string{"append", "save", "end", "order", "prune"}
		restart("", false)
		for n := range 4 {
			time.Sleep(time.Hour)
			restart(kinds[n%3], n%2 == 0)
		}
		for n := 0; y.ca.day(time.Now()) < 350; n++ {
			time.Sleep(14*day + time.Duration(n)*7*time.Hour)
			restart(append(kinds, "")[n%6], n/6%2 == 0)
		}
		m := y.end()
		t.Logf("%d restarts cut off %d orders, %d of them counted; %d certificates never came to be in the store", ends, m.cut, m.cutCounted, m.vanished)
		if m.cut == 0 || m.cut > ends*y.budget.InFlight {
			t.Errorf("%d orders were cut off by %d restarts", m.cut, ends)
		}
		if vanish == 0 || m.vanished < vanish || m.vanished > ends {
			t.Errorf("%d names were ordered again for a certificate that was lost, of %d", m.vanished, vanish)
		}
		if most := crowd + m.cutCounted + m.vanished + m.failures; m.counted < crowd || m.counted > most {
			t.Errorf("%d orders were counted, want at most %d", m.counted, most)
		}
		// Names that a restart has come between are drawn anew, where others may be.
		m.even(t, 2.1, 90, 190)
		m.even(t, 2.1, 270, 365)
	})
}
