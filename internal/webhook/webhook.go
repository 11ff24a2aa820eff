// Package webhook tells other people's programs what happened: it sends the events of the store to the URLs that tenants,
// or the service, have declared, signed by the Standard Webhooks specification (https://www.standardwebhooks.com).
//
// Each event is sent until it is taken, at least once and under one id. Those about one domain are sent in their order: the
// next one waits until the one before is taken or given up, after three days. Those of different domains are sent side by
// side. A receiver that takes nothing any more is asked less and less, up to once an hour, and delays no other.
//
// How far a webhook is stands in the store, where one node of several at a time takes it up. When that one is killed, another
// goes on within [Lease], and sends once more what was on its way.
package webhook

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/stspub/stspub/internal/store"
)

const (
	// Lease is how long a webhook waits for a node that was killed while it delivered.
	Lease = time.Minute
	// MaxInFlight is how many events are on their way to one webhook at a time.
	MaxInFlight = 16

	maxRuns   = 1024                   // webhooks under way on this node
	maxHeld   = 256                    // names of one webhook whose events wait for one that was not taken
	pageSize  = 128                    // events read at once
	heldPage  = 16                     // and of one name, where there may be many
	rushEvery = 250 * time.Millisecond // the shortest time between two looks, however much happens
	checkTime = 30 * time.Second       // between two looks at what fails
	saveEvery = time.Second            // what is sent again after a crash, beside what was on its way
	holdEvery = 10 * time.Second       // a claim is prolonged
	storeTime = 10 * time.Second       // one word to the store
	drainTime = 4 * time.Second        // for answers under way when the process is to stop
)

// schedule says how long everything may take, and when an event that was not taken is sent again.
type schedule struct {
	look        time.Duration // between two looks for what is due, and for what a killed node left
	answer      time.Duration // for connection, request and answer
	first, most time.Duration // the first pause, which doubles, and the longest
	giveUp      time.Duration // after the first try
	failing     time.Duration // after which a webhook of the service is a fault
}

// Store is what is needed of a [store.Store].
type Store interface {
	store.Webhooks
	Events(ctx context.Context, f store.EventFilter, after int64, n int) ([]store.Event, error)
	LastChange(ctx context.Context) (int64, error)
	Wait(ctx context.Context, after int64) error
	PruneEvents(ctx context.Context, before time.Time, n int, kinds []string) (int, []store.Forgotten, error)
}

// Config is what [New] needs.
type Config struct {
	Store Store
	// Dial connects to receivers, to whatever address their names have. It is what keeps us out of private networks.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Roots are the authorities that receivers' certificates may be of; nil: the system's.
	Roots *x509.CertPool
	Log   *slog.Logger
	// Fault is told of webhooks of the service that fail for an hour, and with an empty reason that they do not.
	Fault func(subject, reason string)
}

// Webhooks manages all webhooks, and delivers events. Its methods may be called at the same time.
type Webhooks struct {
	cfg      Config
	client   *http.Client
	schedule schedule
	metrics  *metrics
}

// New makes it; nothing runs yet.
func New(cfg Config) *Webhooks {
	return &Webhooks{
		cfg: cfg, client: newClient(cfg.Dial, cfg.Roots), metrics: newMetrics(),
		schedule: schedule{look: 5 * time.Second, answer: 15 * time.Second, first: 5 * time.Second, most: time.Hour, giveUp: 72 * time.Hour, failing: time.Hour},
	}
}

// Collectors returns the metrics.
func (h *Webhooks) Collectors() []prometheus.Collector { return h.metrics.collectors() }

// Run delivers events until ctx ends; then it waits a few seconds for answers, and gives back what it has claimed.
func (h *Webhooks) Run(ctx context.Context) error {
	var all sync.WaitGroup
	defer h.client.CloseIdleConnections()
	defer all.Wait()
	news := make(chan struct{}, 1)
	all.Go(func() { h.listen(ctx, news) })
	all.Go(func() { h.check(ctx) })
	running := make(chan struct{}, maxRuns)
	for {
		h.claim(ctx, &all, running, news)
		if !sleep(ctx, rushEvery) {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-news:
		case <-time.After(h.schedule.look):
		}
	}
}

// Prune forgets events from before a time, of the n oldest, and returns how many those were. What a webhook was not told of
// before is lost: its state, the log and the metrics say so.
func (h *Webhooks) Prune(ctx context.Context, before time.Time, n int) (int, error) {
	gone, lost, err := h.cfg.Store.PruneEvents(ctx, before, n, DefaultKinds())
	for _, l := range lost {
		h.metrics.add("lost", l.Events)
		h.cfg.Log.Error("events lost, they were too old to be kept before a webhook took them", "tenant", l.Tenant, "id", l.Name, "count", l.Events)
	}
	return gone, err
}

// listen tells of changes in the store until ctx ends.
func (h *Webhooks) listen(ctx context.Context, news chan<- struct{}) {
	last := int64(-1)
	for ctx.Err() == nil {
		err := h.cfg.Store.Wait(ctx, last)
		if err == nil {
			last, err = h.cfg.Store.LastChange(ctx)
		}
		pause := rushEvery
		if err != nil { // whoever looks next says so
			pause = h.schedule.look
		}
		poke(news)
		sleep(ctx, pause)
	}
}

// claim takes up what has something to do.
func (h *Webhooks) claim(ctx context.Context, all *sync.WaitGroup, running chan struct{}, news chan<- struct{}) {
	begun := time.Now()
	lookCtx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	claimed, now, err := h.cfg.Store.ClaimWebhooks(lookCtx, Lease, cap(running)-len(running))
	if err != nil {
		if ctx.Err() == nil {
			h.cfg.Log.Warn("webhooks not looked for", "err", err)
		}
		return
	}
	for _, w := range claimed {
		running <- struct{}{} // there is a place for each
		all.Go(func() {
			newRun(h, w, now.Sub(begun)).run(ctx)
			<-running
			poke(news) // there may be more by now
		})
	}
}

func poke(news chan<- struct{}) {
	select {
	case news <- struct{}{}:
	default: // it is told already
	}
}

// check looks at what fails until ctx ends, for the metrics and the faults.
func (h *Webhooks) check(ctx context.Context) {
	known := make(map[string]bool)
	for {
		failing, err := h.cfg.Store.FailingWebhooks(ctx)
		switch {
		case err == nil:
			h.judge(failing, known)
		case ctx.Err() == nil:
			h.cfg.Log.Warn("webhooks not looked at", "err", err)
		}
		if !sleep(ctx, checkTime) {
			return
		}
	}
}

// judge tells of what fails, and of what was known to fail and does not.
func (h *Webhooks) judge(failing []store.Webhook, known map[string]bool) {
	now, oldest := time.Now(), time.Duration(0)
	faulty := make(map[string]bool)
	for _, w := range failing {
		d := w.Delivery
		if !d.Since.IsZero() {
			oldest = max(oldest, now.Sub(d.Since))
		}
		if w.Tenant != "" {
			continue // its tenant sees it
		}
		reason := ""
		switch {
		case d.Paused:
			reason = fmt.Sprintf("it is paused (%s): put it right or remove it, then: stspub webhook resume %s", d.Problem, w.Name)
		case now.Sub(d.Since) >= h.schedule.failing:
			reason = fmt.Sprintf("it takes not all events since %s (%s): stspub webhook show %s",
				d.Since.UTC().Format(time.DateTime+" MST"), d.Problem, w.Name)
		default:
			continue
		}
		faulty["webhook "+w.Name] = true
		known["webhook "+w.Name] = true
		h.cfg.Fault("webhook "+w.Name, reason)
	}
	h.metrics.oldest.Set(oldest.Seconds())
	for subject := range known {
		if !faulty[subject] {
			h.cfg.Fault(subject, "")
			delete(known, subject)
		}
	}
}

// sleep says whether ctx lasted that long.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// errStopped is the cause of sending that ends because the process does, or because another node has the webhook.
var errStopped = errors.New("stopped")
