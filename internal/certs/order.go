package certs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/acme/autocert"

	"github.com/stspub/stspub/internal/store"
)

const (
	// maxOrders is how many orders one Obtain may send: one for each way to be validated. A Manager would send one more.
	maxOrders = 2
	// maxAnswer bounds what is read of an authority's answer, in bytes.
	maxAnswer = 1 << 20
	// challengePrefix is where answers to challenges lie in the store.
	challengePrefix = "acme/challenge/"
)

// errOver is what a Manager gets whose order has ended.
var errOver = errors.New("the order has ended")

// order is the surroundings of one autocert.Manager: as its transport it binds the Manager to the order's context and
// listens to what the authority says; as its cache it puts answers to challenges into the store. Once the order has
// ended the Manager can do nothing any more.
type order struct {
	ctx  context.Context //nolint:containedctx // this is what the Manager lacks
	acme *ACME
	name string

	mu       sync.Mutex // guards what follows
	over     bool
	asked    bool     // the Manager looked for a certificate
	tokens   []string // keys of the answers in the store
	orderURL string   // the directory's newOrder
	orders   int      // that the authority took
	problems problems
	err      error // the first error that was not the authority's answer
}

func newOrder(ctx context.Context, a *ACME, name string) *order {
	return &order{ctx: ctx, acme: a, name: name}
}

// close ends the order and takes its answers out of the store.
func (o *order) close() {
	o.mu.Lock()
	o.over = true
	tokens := o.tokens
	o.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(o.ctx), saveTimeout)
	defer cancel()
	for _, key := range tokens {
		if err := o.acme.values.DeleteValue(ctx, key); err != nil {
			o.acme.log.Warn("left the answer to a challenge in the store", "domain", o.name, "err", err)
		}
	}
}

// explain returns why the order failed: what the authority said, if it said something, since the Manager keeps nothing
// of it.
func (o *order) explain(err error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.ctx.Err() != nil && len(o.problems) == 0:
		return fmt.Errorf("wait for the authority: %w", o.ctx.Err())
	case len(o.problems) > 0:
		return o.problems
	case o.err != nil:
		return o.err
	default:
		return err
	}
}

// fail keeps the first error.
func (o *order) fail(err error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil {
		o.err = err
	}
	return err
}

// RoundTrip sends a request while the order runs.
func (o *order) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := o.admit(req.URL.String()); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(req.Context())
	defer cancel()
	defer context.AfterFunc(o.ctx, cancel)()
	res, err := o.acme.transport.RoundTrip(req.WithContext(ctx))
	if err != nil {
		return nil, o.fail(fmt.Errorf("ask the authority at %s: %w", req.URL.Host, err))
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	res.Body.Close()
	if err != nil {
		return nil, o.fail(fmt.Errorf("ask the authority at %s: %w", req.URL.Host, err))
	}
	res.Body = io.NopCloser(bytes.NewReader(body))
	o.listen(res, body)
	return res, nil
}

// admit says whether a request may be sent.
func (o *order) admit(url string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.over:
		return errOver
	case o.err != nil:
		return o.err
	case url == o.orderURL && o.orders == maxOrders:
		return errors.New("every way to be validated was tried")
	}
	return nil
}

// said is what interests us in the authority's answers: the directory (RFC 8555, Section 7.1.1), orders (7.1.3),
// authorisations (7.1.4), challenges (8) and problems (6.7).
type said struct {
	NewOrder string `json:"newOrder"`

	Type       string       `json:"type"` // of a challenge
	Status     string       `json:"status"`
	Error      *problemJSON `json:"error"`
	Challenges []struct {
		Type  string       `json:"type"`
		Error *problemJSON `json:"error"`
	} `json:"challenges"`
}

// problemJSON is a problem document (RFC 7807).
type problemJSON struct {
	Type        string        `json:"type"`
	Detail      string        `json:"detail"`
	Subproblems []problemJSON `json:"subproblems"`
}

// listen notes what an answer says.
func (o *order) listen(res *http.Response, body []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if res.StatusCode >= 400 {
		var p problemJSON
		if json.Unmarshal(body, &p) != nil {
			p = problemJSON{Detail: "answered " + res.Status}
		}
		if !strings.HasSuffix(p.Type, ":badNonce") { // that one is repeated
			o.note(p, &Problem{Status: res.StatusCode, RetryAfter: retryAfter(res.Header.Get("Retry-After"))})
		}
		return
	}
	if res.StatusCode == http.StatusCreated && res.Request.URL.String() == o.orderURL {
		o.orders++
	}
	var s said
	if json.Unmarshal(body, &s) != nil {
		return // a certificate chain
	}
	if s.NewOrder != "" {
		o.orderURL = s.NewOrder
	}
	if s.Status != "invalid" {
		return
	}
	for _, c := range s.Challenges {
		if c.Error != nil {
			o.note(*c.Error, &Problem{Challenge: c.Type})
		}
	}
	if s.Error != nil {
		o.note(*s.Error, &Problem{Challenge: s.Type})
	}
}

// note adds a problem, once. The caller holds mu.
func (o *order) note(j problemJSON, p *Problem) {
	p.Type, p.Detail = j.Type, strings.TrimSpace(j.Detail)
	for _, sub := range j.Subproblems {
		p.Detail = strings.TrimSpace(p.Detail + " " + strings.TrimSpace(sub.Detail))
	}
	for i, old := range o.problems {
		switch {
		case old.Detail != p.Detail:
		case old.Challenge == "": // an order may repeat what its challenge says, and be read first
			o.problems[i] = p
			return
		case old.Challenge == p.Challenge, p.Challenge == "":
			return
		}
	}
	o.problems = append(o.problems, p)
}

// retryAfter reads the header of RFC 9110, Section 10.2.3; 0 is what cannot be read.
func retryAfter(v string) time.Duration {
	if n, err := strconv.Atoi(v); err == nil && n > 0 {
		return min(time.Duration(n), 1<<31) * time.Second
	}
	if t, err := http.ParseTime(v); err == nil {
		return max(0, time.Until(t))
	}
	return 0
}

// Get is for autocert.Cache. The Manager asks for the certificate twice: first before it orders; again, much later,
// when the timer fires that it sets for renewal and that nobody can stop. The goroutine of that timer ends here, so it
// sets no other, and the Manager becomes garbage.
func (o *order) Get(_ context.Context, key string) ([]byte, error) {
	o.mu.Lock()
	again := o.asked && key == o.name
	o.asked = o.asked || key == o.name
	o.mu.Unlock()
	if again {
		runtime.Goexit()
	}
	return nil, autocert.ErrCacheMiss
}

// Put is for autocert.Cache: it keeps the answer to a challenge. The certificate is not kept here.
func (o *order) Put(_ context.Context, key string, data []byte) error {
	if key == o.name {
		return nil
	}
	at := challengePrefix + key
	o.mu.Lock()
	over := o.over
	o.tokens = append(o.tokens, at)
	o.mu.Unlock()
	if over {
		return errOver
	}
	if err := o.acme.values.SetValue(o.ctx, at, data); err != nil {
		// The Manager ignores this. A challenge that nobody can answer must not be begun.
		return o.fail(fmt.Errorf("keep answer to a challenge: %w", err))
	}
	return nil
}

// Delete is for autocert.Cache. It does nothing: close deletes.
func (o *order) Delete(context.Context, string) error { return nil }

// answers is the cache of the Manager that answers challenges: it reads what orders have put.
type answers struct {
	values Values
	log    *slog.Logger
}

// Get returns the answer to a challenge. What it cannot find out it does not tell to the outside.
func (c answers) Get(ctx context.Context, key string) ([]byte, error) {
	if len(key) > 2*maxName {
		return nil, autocert.ErrCacheMiss
	}
	data, err := c.values.Value(ctx, challengePrefix+key)
	if err != nil {
		if !errors.Is(err, store.ErrNotFound) {
			c.log.Error("read no answer to a challenge", "err", err)
		}
		return nil, autocert.ErrCacheMiss
	}
	return data, nil
}

// Put is for autocert.Cache. It does nothing.
func (answers) Put(context.Context, string, []byte) error { return nil }

// Delete is for autocert.Cache. It does nothing.
func (answers) Delete(context.Context, string) error { return nil }
