package e2e_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/certs"
	"github.com/stspub/stspub/internal/store"
)

// orderCount counts the orders that an authority takes, by what it logs.
type orderCount struct{ atomic.Int32 }

// Write is for a log.
func (c *orderCount) Write(line []byte) (int, error) {
	if bytes.Contains(line, []byte("Added order ")) {
		c.Add(1)
	}
	return len(line), nil
}

func (c *orderCount) log() *slog.Logger {
	return slog.New(slog.NewTextHandler(c, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// TestCrashDuringOrders kills the daemon while it orders for many names. Each order was entered in the journal before it
// was sent, so the next start orders again what was under way, and nothing else.
func TestCrashDuringOrders(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "Cloudflare")
	w.settings.domains = nil
	for n := range 12 {
		d := fmt.Sprintf("c%d.provider.test", n)
		w.set("mta-sts."+d, "A", w.ip)
		w.set(d, "MX", "10 mx1.provider.test.")
		w.settings.domains = append(w.settings.domains, d)
	}
	w.configure()
	const kills = 3
	for n := range kills {
		w.start()
		w.servesWhole()
		w.until("orders", patience, func() (bool, string) {
			got := int(w.orders.Load())
			return got >= 3*(n+1), fmt.Sprint(got)
		})
		w.crash()
	}
	w.start()
	w.servesWhole()
	var o certs.Overview
	w.until("certificates", patience, func() (bool, string) {
		var err error
		o, err = w.admin.Certificates(t.Context())
		return err == nil && o.Valid == 13, fmt.Sprint(o, err)
	})
	if n := w.servesWhole(); n != 12 {
		t.Errorf("%d of 12 names are served", n)
	}
	w.stop()
	w.checkJournal(t, 13, kills)
}

// servesWhole sees that whatever is served is whole: a name has a certificate that is good for it, or the alert. It
// returns how many have one.
func (w *world) servesWhole() int {
	w.t.Helper()
	served := 0
	for _, d := range w.settings.domains {
		resp, err := w.sender(d).Get("https://mta-sts." + d + "/")
		switch {
		case err == nil:
			served++
			resp.Body.Close()
		case !strings.Contains(err.Error(), "unrecognized name"):
			w.t.Errorf("%s: %v, want a good certificate or the alert unrecognized_name", d, err)
		}
	}
	return served
}

// checkJournal compares what was entered with what the authority got.
func (w *world) checkJournal(t *testing.T, names, kills int) {
	t.Helper()
	st, err := store.OpenSQLite(t.Context(), w.path("stspub.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	entries, err := st.Journal(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	ended, cut := make(map[string]int), make(map[string]int)
	for _, e := range entries {
		if e.Failed && e.Ended.Equal(e.Begun) {
			cut[e.Name]++
		} else {
			ended[e.Name]++
		}
	}
	total := 0
	for _, n := range cut {
		total += n
		if n > kills {
			t.Errorf("%d orders were cut off by %d kills", n, kills)
		}
	}
	for name, n := range ended {
		if n != 1 {
			t.Errorf("%s was ordered %d times, and cut off %d times", name, n, cut[name])
		}
	}
	if got := int(w.orders.Load()); total == 0 || len(ended) != names || got > len(entries) {
		t.Errorf("%d orders sent, %d entered, for %d names, %d of them cut off", got, len(entries), len(ended), total)
	}
	t.Logf("%d orders for %d names, %d of them cut off by %d kills, in %v", len(entries), names, total, kills,
		entries[len(entries)-1].Ended.Sub(entries[0].Begun).Round(time.Millisecond))
}
