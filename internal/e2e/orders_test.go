package e2e_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/certs"
	"github.com/stspub/stspub/internal/store"
)

// orderBook counts the orders that an authority takes, by name.
type orderBook struct {
	mu     sync.Mutex // guards byName
	byName map[string]int
}

// wrap stands before the authority.
func (b *orderBook) wrap(ca http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/order-plz" {
			ca.ServeHTTP(w, r)
			return
		}
		raw, err := io.ReadAll(r.Body)
		if err != nil {
			return // the client is gone
		}
		r.Body = io.NopCloser(bytes.NewReader(raw))
		answer := statusWriter{ResponseWriter: w}
		ca.ServeHTTP(&answer, r)
		if answer.status == http.StatusCreated {
			b.note(raw)
		}
	})
}

// note reads an order. RFC 8555, Section 7.4.
func (b *orderBook) note(raw []byte) {
	var signed struct{ Payload string }
	var order struct{ Identifiers []struct{ Value string } }
	err := json.Unmarshal(raw, &signed)
	if err == nil {
		raw, err = base64.RawURLEncoding.DecodeString(signed.Payload)
	}
	if err == nil {
		err = json.Unmarshal(raw, &order)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.byName == nil {
		b.byName = make(map[string]int)
	}
	if err != nil || len(order.Identifiers) != 1 {
		b.byName[fmt.Sprintf("%q: %v", raw, err)]++ // no test expects that
		return
	}
	b.byName[order.Identifiers[0].Value]++
}

// all is how often each name was ordered.
func (b *orderBook) all() map[string]int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.byName)
}

// total counts all orders.
func (b *orderBook) total() int {
	n := 0
	for _, of := range b.all() {
		n += of
	}
	return n
}

// statusWriter keeps the status of an answer.
type statusWriter struct {
	http.ResponseWriter

	status int
}

// WriteHeader implements [http.ResponseWriter].
func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
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
			got := w.orders.total()
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
	if got := w.orders.total(); total == 0 || len(ended) != names || got > len(entries) {
		t.Errorf("%d orders sent, %d entered, for %d names, %d of them cut off", got, len(entries), len(ended), total)
	}
	t.Logf("%d orders for %d names, %d of them cut off by %d kills, in %v", len(entries), names, total, kills,
		entries[len(entries)-1].Ended.Sub(entries[0].Begun).Round(time.Millisecond))
}
