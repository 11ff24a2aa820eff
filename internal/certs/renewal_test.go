package certs

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

const testDay = 24 * time.Hour

func TestRenewalIsPlannedInBounds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		life, from, to time.Duration
	}{
		{90 * testDay, 45 * testDay, 60 * testDay},
		{45 * testDay, 22*testDay + 12*time.Hour, 30 * testDay},
		{6 * testDay, 64*time.Hour + 48*time.Minute, 72 * time.Hour},
		{time.Hour, 27 * time.Minute, 30 * time.Minute},
		{398 * testDay, 199 * testDay, 368 * testDay},
	} {
		var p plans
		p.init()
		end := noon.Add(c.life)
		for n := range 500 {
			name := fmt.Sprint(n)
			at := p.plan(name, noon, end, noon)
			if again := p.plan(name, noon, end, noon); !at.Equal(again) {
				t.Fatalf("life %v: %v, and then %v", c.life, at, again)
			}
			if used := at.Sub(noon); used < c.from || used > c.to {
				t.Errorf("life %v: renewed after %v, want %v to %v", c.life, used, c.from, c.to)
			}
			p.add(at.Unix(), 1)
		}
		if late := lateAt(noon, end); !late.After(noon.Add(c.to)) || end.Sub(late) < min(c.life/13, 20*testDay) {
			t.Errorf("life %v: late %v before the end", c.life, end.Sub(late))
		}
	}
}

// TestRenewalsAreSpread: what was obtained on one day is renewed on many, and no hour has many more than others.
func TestRenewalsAreSpread(t *testing.T) {
	t.Parallel()
	var p plans
	p.init()
	for n := range 15 * 24 * 10 { // 10 an hour
		p.add(p.plan(fmt.Sprint(n), noon, noon.Add(90*testDay), noon).Unix(), 1)
	}
	var counts []int
	for _, n := range p.hours {
		counts = append(counts, n)
	}
	if most := slices.Max(counts); most > 14 || len(counts) < 15*24-2 {
		t.Errorf("%d hours, at most %d in one", len(counts), most)
	}
	p.sweep(noon.Add(61 * testDay))
	if len(p.hours) != 0 {
		t.Errorf("%d hours that are past are remembered", len(p.hours))
	}
	p.add(0, -1)
	if len(p.hours) != 0 {
		t.Error("what was never planned is counted")
	}
}

// TestOverdueIsRenewedAtOnce: what was due meanwhile is spread over hours, and another start does not put it off.
func TestOverdueIsRenewedAtOnce(t *testing.T) {
	t.Parallel()
	var p plans
	p.init()
	end, to := noon.Add(90*testDay), noon.Add(60*testDay)
	for n := range 1200 {
		name := fmt.Sprint(n)
		at := p.plan(name, noon, end, to)
		if at.Before(to) || at.After(to.Add(overdueFor)) {
			t.Fatalf("renewed %v after the end of its bounds", at.Sub(to))
		}
		p.add(at.Unix(), 1)
		for now := to; now.Before(end); now = now.Add(testDay / 9) {
			if again := p.plan(name, noon, end, now); !again.Equal(latest(at, now)) {
				t.Fatalf("%v after the end of its bounds it is renewed at %v, not %v", now.Sub(to), again, at)
			}
		}
	}
	for hour, n := range p.hours {
		if n > 260 {
			t.Errorf("%d renewals in hour %d", n, hour)
		}
	}
	if at := p.plan("expired", noon, end, noon.Add(91*testDay)); !at.Equal(noon.Add(91 * testDay)) {
		t.Errorf("what has expired is renewed at %v", at)
	}
}

func TestReplanInTheWindow(t *testing.T) {
	t.Parallel()
	end := noon.Add(90 * testDay)
	window := func(from, to time.Duration) Window { return Window{Start: noon.Add(from), End: noon.Add(to)} }
	now := noon.Add(testDay)
	seen := make(map[time.Time]bool)
	for n := range 100 {
		name := fmt.Sprint(n)
		w := window(10*testDay, 12*testDay)
		at, revoked := replan(name, noon.Add(50*testDay), noon, end, w, now)
		if revoked || at.Before(w.Start) || at.After(w.End) {
			t.Errorf("a window before the plan: %v, revoked %v", at.Sub(noon), revoked)
		}
		if again, _ := replan(name, noon.Add(50*testDay), noon, end, w, now); !again.Equal(at) {
			t.Errorf("%v, and then %v", at, again)
		}
		seen[at] = true
	}
	if len(seen) < 100 {
		t.Errorf("100 names draw %d times", len(seen))
	}
	if at, _ := replan("a", noon.Add(50*testDay), noon, end, window(60*testDay, 62*testDay), now); !at.Equal(noon.Add(50 * testDay)) {
		t.Errorf("a window after the plan: %v", at)
	}
	if at, revoked := replan("a", noon.Add(50*testDay), noon, end, window(-2*testDay, -testDay), now); !at.Equal(now) || !revoked {
		t.Errorf("a window that is over: %v, revoked %v", at, revoked)
	}
	if at, revoked := replan("a", noon.Add(50*testDay), noon, end, window(0, 2*testDay), now); at.Before(now) || revoked {
		t.Errorf("a window that has begun: %v, revoked %v", at, revoked)
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	const urn = "urn:ietf:params:acme:error:"
	for _, c := range []struct {
		p    Problem
		want verdict
	}{
		{Problem{Status: 429, Type: urn + "rateLimited", RetryAfter: time.Hour, Detail: "too many new orders (300) from this account in the last 3h0m0s"}, verdict{outage: true, stop: true, wait: time.Hour}},
		{Problem{Status: 429, RetryAfter: 30 * testDay, Detail: "slow down"}, verdict{outage: true, stop: true, wait: longestRetryAfter}},
		{
			Problem{Status: 429, Type: urn + "rateLimited", RetryAfter: time.Hour, Detail: `too many failed authorizations (5) for "mta-sts.shop.example" in the last 1h0m0s`},
			verdict{refuses: true, wait: time.Hour},
		},
		{Problem{Status: 429, RetryAfter: time.Hour, Detail: `too many certificates (50) already issued for "shop.example" in the last 168h0m0s`}, verdict{refuses: true, wait: time.Hour}},
		{Problem{Status: 429, RetryAfter: time.Hour, Detail: `too many certificates (5) already issued for this exact set of identifiers`}, verdict{refuses: true, wait: time.Hour}},
		{Problem{Status: 429, Detail: "answered 429 Too Many Requests"}, verdict{outage: true}},
		{Problem{Status: 503, RetryAfter: time.Minute}, verdict{outage: true, wait: time.Minute}},
		{Problem{Status: 500, Type: urn + "serverInternal"}, verdict{outage: true}},
		{Problem{Status: 400, Type: urn + "rejectedIdentifier"}, verdict{refuses: true}},
		{Problem{Status: 403, Type: urn + "caa"}, verdict{refuses: true}},
		{Problem{Type: urn + "dns"}, verdict{}},
		{Problem{Type: urn + "connection", Challenge: "http-01"}, verdict{failed: true}},
		{Problem{Type: urn + "caa", Challenge: "http-01"}, verdict{failed: true, refuses: true}},
	} {
		got := judge(fmt.Errorf("order: %w", &c.p), "mta-sts.shop.example", "shop.example")
		if got.advice = ""; got != c.want {
			t.Errorf("%v means %+v, want %+v", &c.p, got, c.want)
		}
	}
}

// BenchmarkWalk is what the scheduler does every hour, and BenchmarkWant what a change of one name costs, with a million.
func BenchmarkWalk(b *testing.B) {
	k := million(b)
	for b.Loop() {
		k.walk(time.Now())
	}
}

func BenchmarkWant(b *testing.B) {
	k := million(b)
	n := 0
	for b.Loop() {
		name := fmt.Sprintf("mta-sts.new%d.test", n)
		k.Want(name, false)
		k.Unwant(name)
		n++
	}
}

func million(b *testing.B) *Keeper {
	b.Helper()
	k := New(Config{Authorities: []Authority{new(ACME)}})
	now := time.Now().Unix()
	for n := range 1_000_000 {
		name := fmt.Sprintf("mta-sts.customer%d.test", n)
		p := fake(k.memory, uint64(n), 600)
		p.notBefore, p.notAfter = now, now+90*24*3600
		k.memory.set(name, p)
		k.Want(name, false)
	}
	if len(k.schedule.items) > 0 {
		b.Fatalf("%d names have an object", len(k.schedule.items))
	}
	return k
}
