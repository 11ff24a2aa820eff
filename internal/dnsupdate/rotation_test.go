package dnsupdate_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/miekg/dns"

	"github.com/stspub/stspub/internal/dnsupdate"
	"github.com/stspub/stspub/internal/policygen"
)

// poller asks a server for the record without pause.
type poller struct {
	answers atomic.Int64
	mu      sync.Mutex // guards the fields below
	ids     map[string]bool
	wrong   []string
}

func (p *poller) run(ctx context.Context, addr, name string) error {
	c := &dns.Client{}
	conn, err := c.Dial(addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	for ctx.Err() == nil {
		m := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeTXT)
		m.SetEdns0(1232, false)
		r, _, err := c.ExchangeWithConn(m, conn)
		if err != nil {
			return err
		}
		p.see(r)
	}
	return nil
}

func (p *poller) see(r *dns.Msg) {
	var ids []string
	strangers := 0
	for _, rr := range r.Answer {
		switch text := strings.Join(rr.(*dns.TXT).Txt, ""); {
		case policygen.IsSTSv1(text), strings.HasPrefix(text, "stspub: "):
			ids = append(ids, text)
		case text == "stranger":
			strangers++
		}
	}
	p.answers.Add(1)
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(ids) != 1 || strangers != 1 || r.Rcode != dns.RcodeSuccess {
		p.wrong = append(p.wrong, fmt.Sprintf("%s %v", dns.RcodeToString[r.Rcode], r.Answer))
	}
	for _, id := range ids {
		p.ids[id] = true
	}
}

// TestRotation rotates while pollers ask: not one answer may hold no STSv1 record, or two.
func TestRotation(t *testing.T) {
	t.Parallel()
	rotation{name: "_mta-sts." + zone, value: func(i int) string { return sts("r" + strconv.Itoa(i)) }}.run(t)
}

// TestTombstone has a name below a wildcard change between a record of its own and a tombstone: not one answer may hold
// none of them, or the wildcard's.
func TestTombstone(t *testing.T) {
	t.Parallel()
	rotation{name: "detached.shared." + zone, value: func(i int) string {
		if i%2 == 1 {
			return "stspub: no policy here, " + strconv.Itoa(i)
		}
		return sts("r" + strconv.Itoa(i))
	}}.run(t)
}

// rotation is what a name is to have, one value after the other, beside a stranger.
type rotation struct {
	name  string
	value func(i int) string
}

func (r rotation) run(t *testing.T) {
	// Cloudflare's allowance is 50 requests at once, three a rotation.
	rotations := map[string]int{"BIND": 200, "Knot": 200, "PowerDNS": 50, "PowerDNS API": 50, "Cloudflare": 15}
	for name := range clouds() {
		rotations[name] = 30
	}
	for provider, rotations := range rotations {
		t.Run(provider, func(t *testing.T) {
			t.Parallel()
			p := places()[provider](t)
			p.set(t, r.name, "TXT", quoted(r.value(0)), `"stranger"`)
			a := p.open(t, dnsupdate.Options{})

			ctx, cancel := context.WithCancel(t.Context())
			poll := &poller{ids: make(map[string]bool)}
			var wg sync.WaitGroup
			for range 2 {
				wg.Go(func() {
					if err := poll.run(ctx, p.addr, r.name); err != nil {
						t.Errorf("poll: %v", err)
						cancel()
					}
				})
			}
			for i := 1; i <= rotations && !t.Failed(); i++ {
				asked := poll.answers.Load()
				if err := a.Apply(ctx, change(r.name, r.value(i), r.value(i-1))); err != nil {
					t.Errorf("rotation %d: %v", i, err)
				}
				for poll.answers.Load() < asked+2 && ctx.Err() == nil { // the pollers have seen this one
					p.observe(t, r.name)
				}
			}
			cancel()
			wg.Wait()
			t.Logf("%d answers, %d ids seen", poll.answers.Load(), len(poll.ids))
			if len(poll.ids) < rotations/2 {
				t.Errorf("pollers saw %d of %d ids: they were too slow to prove anything", len(poll.ids), rotations)
			}
			if len(poll.wrong) > 0 {
				t.Errorf("%d of %d answers were wrong, the first: %s", len(poll.wrong), poll.answers.Load(), poll.wrong[0])
			}
			p.wantData(t, r.name, quoted(r.value(rotations)), `"stranger"`)
		})
	}
}
