package dnsupdate_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/dnsupdate"
	"github.com/stspub/stspub/internal/lab/labtest"
)

// slowAPI is PowerDNS's API without a network and without records: a look takes no time, a write as long as it is told.
type slowAPI struct {
	takes time.Duration
	each  time.Duration                                  // longer for each change beside the first
	patch func(names []string) (status int, body string) // nil: takes everything

	mu      sync.Mutex // guards the fields below
	patches [][]string // the names in each write
	ended   error      // of the context of the last write that was not waited for
}

// RoundTrip answers a request.
func (s *slowAPI) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodGet {
		resp := answer(200, `{"rrsets":[]}`, nil)
		resp.Request = r
		return resp, nil
	}
	var body struct {
		RRsets []struct{ Name string } `json:"rrsets"`
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		return nil, err
	}
	var names []string
	for _, set := range body.RRsets {
		names = append(names, strings.TrimSuffix(set.Name, "."+zone+"."))
	}
	s.mu.Lock()
	s.patches = append(s.patches, names)
	s.mu.Unlock()
	select {
	case <-time.After(s.takes + s.each*time.Duration(len(names)-1)):
	case <-r.Context().Done():
		s.mu.Lock()
		defer s.mu.Unlock()
		s.ended = r.Context().Err()
		return nil, s.ended
	}
	resp := answer(204, "", nil)
	if s.patch != nil {
		if status, text := s.patch(names); status != 0 {
			resp = answer(status, text, nil)
		}
	}
	resp.Request = r
	return resp, nil
}

func (s *slowAPI) open(t *testing.T) dnsupdate.Account {
	t.Helper()
	a, err := dnsupdate.Open(config.Account{Name: "main", Provider: "powerdns", Server: "http://pdns", APIKey: "key"},
		dnsupdate.Options{HTTP: s})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// sizes are how many changes each write had.
func (s *slowAPI) sizes() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []int
	for _, names := range s.patches {
		out = append(out, len(names))
	}
	return out
}

// crowd applies changes of many names at once and returns their results when all are there.
func crowd(ctx context.Context, a dnsupdate.Account, names int) func() []error {
	errs := make([]error, names)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = a.Apply(ctx, change(fmt.Sprintf("n%d.%s", i, zone), sts("now"))) })
	}
	return func() []error { wg.Wait(); return errs }
}

// TestGather wants the first call to go out at once, and those that come meanwhile together, up to what fits.
func TestGather(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		api := &slowAPI{takes: time.Millisecond}
		a := api.open(t)
		start := time.Now()
		apply(t, a, change("alone."+zone, sts("now")))
		if took := time.Since(start); took != time.Millisecond {
			t.Errorf("a lone change took %v, want 1ms", took)
		}
		time.Sleep(time.Minute)
		first := crowd(t.Context(), a, 1)
		synctest.Wait()
		rest := crowd(t.Context(), a, 2501)
		for _, err := range append(first(), rest()...) {
			if err != nil {
				t.Errorf("Apply: %v", err)
			}
		}
		// One of the rest is for the name of the first, and waits for it before it gets in line.
		got := api.sizes()
		if want := []int{1, 1, 1000, 1000, 501}; !slices.Equal(got, want) {
			t.Errorf("changes in each write = %v, want %v", got, want)
		}
	})
}

// TestGatherZones has each zone go its own way: a write of one does not gather changes of another.
func TestGatherZones(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		api := &slowAPI{takes: time.Second}
		a := api.open(t)
		var wg sync.WaitGroup
		for _, z := range []string{"example.com", "example.net"} {
			for i := range 3 {
				wg.Go(func() {
					apply(t, a, dnsupdate.Change{Zone: z, Name: fmt.Sprintf("n%d.%s", i, z), TTL: time.Minute, Add: "x"})
				})
			}
		}
		wg.Wait()
		for _, names := range api.patches {
			for _, n := range names {
				if strings.Contains(n, "example.com") != strings.Contains(names[0], "example.com") {
					t.Errorf("one write for %v", names)
				}
			}
		}
	})
}

// TestLeave has callers give up: before, so that nothing is sent for them; in between, so that the others go on; all of
// them, so that the request ends.
func TestLeave(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		api := &slowAPI{takes: 5 * time.Second}
		a := api.open(t)
		p := &place{}
		first := crowd(t.Context(), a, 1)
		synctest.Wait()
		gone, leave := context.WithCancel(t.Context())
		var early, late error
		go func() { early = a.Apply(gone, change("early."+zone, sts("now"))) }()
		synctest.Wait()
		leave()
		synctest.Wait()
		if e := p.fails(t, early, dnsupdate.KindUnavailable); e.Op != "read" || !errors.Is(e, context.Canceled) {
			t.Errorf("early: %v, op %s", e, e.Op)
		}
		gone, leave = context.WithCancel(t.Context())
		go func() { late = a.Apply(gone, change("late."+zone, sts("now"))) }()
		var stays error
		go func() { stays = a.Apply(t.Context(), change("stays."+zone, sts("now"))) }()
		time.Sleep(6 * time.Second) // the first one is through, the two are under way
		leave()
		synctest.Wait()
		if e := p.fails(t, late, dnsupdate.KindUnavailable); e.Op != "write" || !errors.Is(e, context.Canceled) {
			t.Errorf("late: %v, op %s", e, e.Op)
		}
		time.Sleep(6 * time.Second)
		synctest.Wait()
		if errs := first(); errs[0] != nil || stays != nil || api.ended != nil {
			t.Errorf("first: %v, stays: %v, request: %v", errs[0], stays, api.ended)
		}
		gone, leave = context.WithCancel(t.Context())
		all := crowd(gone, a, 1)
		time.Sleep(time.Second)
		leave()
		p.fails(t, all()[0], dnsupdate.KindUnavailable)
		if !errors.Is(api.ended, context.Canceled) {
			t.Errorf("the request ended with %v, want canceled", api.ended)
		}
		if got := fmt.Sprint(api.patches); strings.Contains(got, "early") {
			t.Errorf("writes = %v, want none of early", got)
		}
	})
}

// TestLeaveLate has callers give up in the instant in which they are sent away. The zone must not wait for them for ever.
func TestLeaveLate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		api := &slowAPI{takes: 8 * time.Second}
		a := api.open(t)
		for range 20 {
			first := crowd(t.Context(), a, 1)
			synctest.Wait()
			ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
			crowd(ctx, a, 4)()
			cancel()
			first()
			apply(t, a, change("after."+zone, sts("now")))
		}
	})
}

// TestGatherCrowd has more than fits into the deadlines: the rest is told when to come back, and spoils nobody's.
func TestGatherCrowd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		api := &slowAPI{takes: 8 * time.Second}
		a := api.open(t)
		start := time.Now()
		errs := crowd(t.Context(), a, 5000)()
		if took := time.Since(start); took > 30*time.Second {
			t.Errorf("Apply took %v", took)
		}
		done := 0
		for _, err := range errs {
			if err == nil {
				done++
				continue
			}
			if e := (&place{}).fails(t, err, dnsupdate.KindRateLimited); e.RetryAfter < 8*time.Second || e.Op != "read" {
				t.Errorf("%v: op %s, RetryAfter %v", e, e.Op, e.RetryAfter)
			}
		}
		if done != 21 {
			t.Errorf("%d changes were made, want the first and two small writes", done)
		}
	})
}

// TestGatherSlow has a server that takes its time for each change: no write may take so long that it is not answered in
// time, and all are made.
func TestGatherSlow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		api := &slowAPI{takes: 50 * time.Millisecond, each: 50 * time.Millisecond}
		for _, err := range crowd(t.Context(), api.open(t), 500)() {
			if err != nil {
				t.Errorf("Apply: %v", err)
			}
		}
		if most := slices.Max(api.sizes()); most != 60 {
			t.Errorf("up to %d changes in a write, want 60, which take 3s", most)
		}
	})
}

// TestGatherTimeout has a write that is not answered: of all its changes it is not known whether they were made.
func TestGatherTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		api := &slowAPI{takes: time.Millisecond, each: time.Minute}
		a := api.open(t)
		first := crowd(t.Context(), a, 1)
		synctest.Wait()
		rest := crowd(t.Context(), a, 101)()
		first()
		for _, err := range rest[1:] {
			if e := (&place{}).fails(t, err, dnsupdate.KindUnavailable); e.Op != "write" {
				t.Errorf("%v: op %s", e, e.Op)
			}
		}
	})
}

// TestCulprit has one change of many that the server does not take.
func TestCulprit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		api := &slowAPI{takes: time.Millisecond, patch: func(names []string) (int, string) {
			if slices.Contains(names, "n77") {
				return 422, `{"error":"RRset n77.example.org. IN TXT: Conflicts with pre-existing RRset"}`
			}
			return 0, ""
		}}
		a := api.open(t)
		first := crowd(t.Context(), a, 1)
		synctest.Wait()
		errs := crowd(t.Context(), a, 500)()
		first()
		for i, err := range errs {
			if i == 77 {
				(&place{}).fails(t, err, dnsupdate.KindCNAME)
			} else if err != nil {
				t.Errorf("n%d: %v", i, err)
			}
		}
		if n := len(api.sizes()); n > 22 {
			t.Errorf("%d writes, want about two for each halving", n)
		}
	})
}

// TestGatherPanic has the transport panic for whole batches.
func TestGatherPanic(t *testing.T) {
	t.Parallel()
	api := &slowAPI{takes: 50 * time.Millisecond, patch: func(names []string) (int, string) {
		if len(names) > 1 {
			panic("no such page")
		}
		return 0, ""
	}}
	a := api.open(t)
	failed := 0
	for i, err := range crowd(t.Context(), a, 20)() {
		if err != nil {
			failed++
			(&place{}).fails(t, err, dnsupdate.KindInternal)
			apply(t, a, change(fmt.Sprintf("n%d.%s", i, zone), sts("now"))) // the zone is not held up for ever
		}
	}
	if failed < 2 {
		t.Errorf("%d changes failed, want those of a batch", failed)
	}
}

// gathering are the places that take several changes at once.
func gathering(t *testing.T, test func(t *testing.T, p *place)) {
	t.Parallel()
	for _, name := range []string{"BIND", "Knot", "PowerDNS", "PowerDNS API"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, places()[name](t))
		})
	}
}

// TestStatesAtOnce changes names in all states at once, each as if it were alone, in few requests.
func TestStatesAtOnce(t *testing.T) {
	gathering(t, func(t *testing.T, p *place) {
		const copies = 6
		m := dnsupdate.NewMetrics()
		a := p.open(t, dnsupdate.Options{Metrics: m})
		var all []state
		for _, s := range states() {
			if strings.Contains(s.name, ".") {
				continue // below a wildcard each has its own
			}
			for i := range copies {
				s := s
				s.name = fmt.Sprintf("%s-%d.%s", s.name, i, zone)
				if len(s.before) > 0 {
					p.set(t, s.name, "TXT", s.before...)
				}
				all = append(all, s)
			}
		}
		all = append(all, state{name: "moved." + zone, add: sts("now"), kind: dnsupdate.KindCNAME})
		p.set(t, "moved."+zone, "CNAME", "x.example.net.")
		errs := make([]error, len(all))
		var wg sync.WaitGroup
		for i, s := range all {
			wg.Go(func() { errs[i] = a.Apply(t.Context(), change(s.name, s.add, s.remove...)) })
		}
		wg.Wait()
		for i, s := range all {
			if s.kind != "" {
				p.fails(t, errs[i], s.kind)
			} else if errs[i] != nil {
				t.Errorf("%s: %v", s.name, errs[i])
			}
			if s.kind != dnsupdate.KindCNAME {
				p.wantData(t, s.name, s.after...)
			}
		}
		limit := float64(len(all)) / 2
		if p.wire != nil {
			limit = float64(len(all)) * 1.3 // each has a look of its own
		}
		if got := metrics(t, m)["stspub_dns_requests_total account=main"]; got > limit {
			t.Errorf("%v requests for %d changes", got, len(all))
		}
	})
}

// names of a batch, each with a value.
func fill(t *testing.T, p *place, n int) []string {
	t.Helper()
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("n%d.%s", i, zone)
		p.set(t, names[i], "TXT", quoted(sts("old")))
	}
	return names
}

func rotateAtOnce(t *testing.T, a dnsupdate.Account, names []string) []error {
	t.Helper()
	errs := make([]error, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() { errs[i] = a.Apply(t.Context(), change(name, sts("now"), sts("old"))) })
	}
	wg.Wait()
	return errs
}

// TestSwappedAtOnce has somebody else change some names between the look and the update of many.
func TestSwappedAtOnce(t *testing.T) {
	dnsServers(t, func(t *testing.T, s *labtest.DNSServer, p *place) {
		names := fill(t, p, 60)
		var mu sync.Mutex // guards victims
		var victims []string
		m := startMeddler(t, s.Addr, func(message) bool { return true })
		m.before = func(m message) {
			mu.Lock()
			defer mu.Unlock()
			if m.updates < 40 || victims != nil {
				return
			}
			update := new(dns.Msg)
			if err := update.Unpack(m.wire); err != nil {
				t.Errorf("update: %v", err)
			}
			for i, rr := range update.Ns {
				if rr.Header().Class != dns.ClassINET {
					continue // what goes
				}
				name := strings.TrimSuffix(rr.Header().Name, ".")
				victims = append(victims, name)
				p.set(t, name, "TXT", [][]string{
					{quoted(sts("old")), quoted(sts("foreign"))}, {quoted(sts("old")), `"stranger"`}, nil,
				}[i/2%3]...)
				if len(victims) == 9 {
					return
				}
			}
		}
		q := *p
		q.config.Server = m.addr
		errs := rotateAtOnce(t, q.open(t, dnsupdate.Options{}), names)
		if len(victims) != 9 {
			t.Fatalf("%d names were changed in between, want 9", len(victims))
		}
		for i, name := range names {
			want := []string{quoted(sts("now"))}
			switch at := slices.Index(victims, name); {
			case at >= 0 && at%3 == 0:
				want = []string{quoted(sts("old")), quoted(sts("foreign"))}
				q.fails(t, errs[i], dnsupdate.KindConflict)
				errs[i] = nil
			case at >= 0 && at%3 == 1:
				want = append(want, `"stranger"`)
			}
			q.wantData(t, name, want...)
			if errs[i] != nil {
				t.Errorf("%s: %v", name, errs[i])
			}
		}
	})
}

// TestLostAtOnce cuts the connection after the server has made the update of many.
func TestLostAtOnce(t *testing.T) {
	dnsServers(t, func(t *testing.T, s *labtest.DNSServer, p *place) {
		names := fill(t, p, 60)
		var over atomic.Bool
		p.config.Server = startMeddler(t, s.Addr, func(m message) bool { return m.updates < 40 || over.Swap(true) }).addr
		a := p.open(t, dnsupdate.Options{})
		lost := 0
		for _, err := range rotateAtOnce(t, a, names) {
			if err != nil {
				lost++
				if e := p.fails(t, err, dnsupdate.KindUnavailable); e.Op != "write" || !errors.Is(e, io.EOF) {
					t.Errorf("%v: op %s", e, e.Op)
				}
			}
		}
		if lost < 20 {
			t.Errorf("%d changes were lost, want those of an update", lost)
		}
		for i, err := range rotateAtOnce(t, a, names) {
			if err != nil {
				t.Errorf("%s: %v", names[i], err)
			}
			p.wantData(t, names[i], quoted(sts("now")))
		}
	})
}

// TestLargeAtOnce has record sets that do not fit into one message together.
func TestLargeAtOnce(t *testing.T) {
	dnsServers(t, func(t *testing.T, _ *labtest.DNSServer, p *place) {
		names := fill(t, p, 40)
		stranger := strings.TrimSpace(strings.Repeat(quoted(strings.Repeat("x", 250))+" ", 12)) // 3 KB
		for _, name := range names {
			p.set(t, name, "TXT", quoted(sts("old")), stranger)
		}
		for i, err := range rotateAtOnce(t, p.open(t, dnsupdate.Options{}), names) {
			if err != nil {
				t.Errorf("%s: %v", names[i], err)
			}
			p.wantData(t, names[i], quoted(sts("now")), stranger)
		}
	})
}
