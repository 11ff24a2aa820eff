package dnsupdate_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/dnsupdate"
)

// state is one that a name can be in, and what a change makes of it.
type state struct {
	name   string
	before []string // zone-file format
	remove []string
	add    string
	kind   dnsupdate.Kind // empty: success
	after  []string
	still  bool // there was nothing to write
}

// states are all that a name can be in.
func states() []state {
	old, older, now, foreign := sts("old"), sts("older"), sts("now"), sts("foreign")
	stranger := `"site-verification=MixedCase 0123"`
	foreignInTwo := `"v=STSv1; " "id=Foreign;"`
	// Two strings, a quote, a backslash, octets that are no UTF-8: nobody may tidy this.
	weird := `"in two \"strings\" " "with \\ and \195\003\255"`
	return []state{
		{name: "fresh", add: now, after: []string{quoted(now)}},
		{name: "fresh-old-gone", remove: []string{old}, add: now, after: []string{quoted(now)}},
		{name: "rotate", before: []string{quoted(old)}, remove: []string{old}, add: now, after: []string{quoted(now)}},
		{name: "older-one", before: []string{quoted(older)}, remove: []string{old, older}, add: now, after: []string{quoted(now)}},
		{name: "already", before: []string{quoted(now)}, remove: []string{old}, add: now, after: []string{quoted(now)}, still: true},
		{name: "itself", before: []string{quoted(now)}, remove: []string{now}, add: now, after: []string{quoted(now)}, still: true},
		{name: "duplicate", before: []string{quoted(old), quoted(older)}, remove: []string{old, older}, add: now, after: []string{quoted(now)}},
		{name: "half-done", before: []string{quoted(old), quoted(now)}, remove: []string{old}, add: now, after: []string{quoted(now)}},
		{name: "malformed", before: []string{`"v=STSv1 id=none"`}, remove: []string{"v=STSv1 id=none"}, add: now, after: []string{quoted(now)}},
		{name: "in-two-strings", before: []string{`"v=STSv1; " "id=old;"`}, remove: []string{old}, add: now, after: []string{quoted(now)}},
		{name: "stranger-alone", before: []string{stranger, weird}, add: now, after: []string{stranger, weird, quoted(now)}},
		{name: "strangers", before: []string{stranger, quoted(old), weird}, remove: []string{old}, add: now, after: []string{stranger, weird, quoted(now)}},
		{name: "strangers-duplicate", before: []string{quoted(older), stranger, quoted(old)}, remove: []string{old, older}, add: now, after: []string{stranger, quoted(now)}},
		{name: "foreign", before: []string{quoted(foreign)}, remove: []string{old}, add: now, kind: dnsupdate.KindConflict, after: []string{quoted(foreign)}},
		{name: "foreign-beside", before: []string{quoted(old), quoted(foreign), stranger}, remove: []string{old}, add: now, kind: dnsupdate.KindConflict, after: []string{quoted(old), quoted(foreign), stranger}},
		{name: "foreign-malformed", before: []string{`"v=STSv1"`}, add: now, kind: dnsupdate.KindConflict, after: []string{`"v=STSv1"`}},
		{name: "remove", before: []string{quoted(old)}, remove: []string{old}},
		{name: "remove-beside", before: []string{quoted(old), stranger}, remove: []string{old}, after: []string{stranger}},
		{name: "remove-nothing", remove: []string{old}, still: true},
		{name: "remove-beside-foreign", before: []string{quoted(old), quoted(foreign)}, remove: []string{old}, after: []string{quoted(foreign)}},
		{name: "remove-behind-foreign", before: []string{quoted(foreign), stranger, quoted(old), weird}, remove: []string{older, old}, after: []string{quoted(foreign), stranger, weird}},
		{name: "remove-duplicate-beside-foreign", before: []string{quoted(old), foreignInTwo, quoted(older)}, remove: []string{old, older}, after: []string{foreignInTwo}},
		{name: "remove-beside-two-foreign", before: []string{quoted(foreign), quoted(old), quoted(now)}, remove: []string{old}, after: []string{quoted(foreign), quoted(now)}},
		{name: "remove-beside-malformed", before: []string{`"v=STSv1"`, quoted(old)}, remove: []string{old}, after: []string{`"v=STSv1"`}},
		{name: "remove-beside-empty", before: []string{`""`, quoted(old)}, remove: []string{old}, after: []string{`""`}},
		{name: "remove-nothing-beside-foreign", before: []string{quoted(foreign), stranger}, remove: []string{old}, after: []string{quoted(foreign), stranger}, still: true},
		{name: "tombstone", before: []string{quoted(old)}, remove: []string{old}, add: "not in use", after: []string{`"not in use"`}},
		{name: "tombstone-ends", before: []string{`"not in use"`, quoted(old)}, remove: []string{"not in use", old}, add: now, after: []string{quoted(now)}},
		// A wildcard's records are answered at the name, but are not there.
		{name: "x.wild", add: now, after: []string{quoted(now)}},
		{name: "x.shared", add: now, after: []string{quoted(now)}},
		{name: "x.elsewhere", add: now, after: []string{quoted(now)}},
		{name: "y.shared", remove: []string{old}, after: []string{quoted(sts("shared"))}, still: true},
		{name: "z.shared", remove: []string{sts("shared")}, after: []string{quoted(sts("shared"))}, still: true},
	}
}

// TestApply changes every state a name can be in.
func TestApply(t *testing.T) {
	everywhere(t, func(t *testing.T, p *place) {
		for _, tt := range states() {
			t.Run(tt.name, func(t *testing.T) {
				a := p.open(t, dnsupdate.Options{})
				name := "_mta-sts." + tt.name + "." + zone
				if strings.Contains(tt.name, ".") {
					name = tt.name + "." + zone // wildcards cover one name here
				}
				if len(tt.before) > 0 {
					p.set(t, name, "TXT", tt.before...)
				}
				written := p.count()
				err := a.Apply(t.Context(), change(name, tt.add, tt.remove...))
				if tt.kind != "" {
					p.fails(t, err, tt.kind)
				} else if err != nil {
					t.Fatalf("Apply: %v", err)
				}
				p.wantData(t, name, tt.after...)
				if (tt.still || tt.kind != "") && p.count() != written {
					t.Errorf("wrote %d times, want none", p.count()-written)
				}
				if tt.kind == "" {
					written = p.count()
					apply(t, a, change(name, tt.add, tt.remove...)) // again: its answer may have been lost
					p.wantData(t, name, tt.after...)
					if p.count() != written {
						t.Errorf("wrote %d times for nothing", p.count()-written)
					}
				}
			})
		}
	})
}

func (p *place) count() int {
	if p.writes == nil {
		return 0
	}
	return p.writes()
}

// TestTTL wants the TTL of the change on the wire.
func TestTTL(t *testing.T) {
	everywhere(t, func(t *testing.T, p *place) {
		a := p.open(t, dnsupdate.Options{})
		name := "_mta-sts." + zone
		for i, ttl := range []time.Duration{60 * time.Second, time.Hour} {
			c := change(name, sts("n"+strconv.Itoa(i)), sts("n"+strconv.Itoa(i-1)))
			c.TTL = ttl
			apply(t, a, c)
			if got := p.observe(t, name).MaxTTL(); got != ttl {
				t.Errorf("TTL = %v, want %v", got, ttl)
			}
		}
	})
}

// TestCNAME wants the CNAME to be found before anything is written: servers acknowledge such updates and drop them, and
// Cloudflare stores a TXT that is not answered.
func TestCNAME(t *testing.T) {
	everywhere(t, func(t *testing.T, p *place) {
		name := "_mta-sts.moved." + zone
		p.set(t, name, "CNAME", "x.example.net.")
		written := p.count()
		err := p.open(t, dnsupdate.Options{}).Apply(t.Context(), change(name, sts("now"), sts("old")))
		e := p.fails(t, err, dnsupdate.KindCNAME)
		says(t, err, `read TXT "_mta-sts.moved.example.org" in zone "example.org" by account "main" (`+e.Provider+
			`): the name is a CNAME to "x.example.net"; delete the CNAME, or publish the domain as alias`)
		if p.count() != written {
			t.Errorf("wrote %d times, want none", p.count()-written)
		}
		v := p.observe(t, name)
		if v.CNAME() != "x.example.net" || v.Absent() {
			t.Errorf("CNAME = %q, Absent = %t, want x.example.net, false", v.CNAME(), v.Absent())
		}
	})
}

// TestZone wants changes elsewhere refused, whether the account can tell or the provider.
func TestZone(t *testing.T) {
	everywhere(t, func(t *testing.T, p *place) {
		a := p.open(t, dnsupdate.Options{})
		for name, c := range map[string]dnsupdate.Change{
			"not the account's": {Zone: "example.net", Name: "_mta-sts.example.net", TTL: time.Minute, Add: sts("now")},
			"not in the zone":   {Zone: zone, Name: "_mta-sts.notexample.org", TTL: time.Minute, Add: sts("now")},
			"no zone":           {Name: "_mta-sts.example.org", TTL: time.Minute, Add: sts("now")},
		} {
			t.Run(name, func(t *testing.T) {
				p.fails(t, a.Apply(t.Context(), c), dnsupdate.KindNoZone)
			})
		}
	})
}

// TestWriters has eight replace the same old value at once, in one process and in two.
func TestWriters(t *testing.T) {
	everywhere(t, func(t *testing.T, p *place) {
		for _, before := range []string{"", sts("old")} {
			for _, accounts := range [][]dnsupdate.Account{
				{p.open(t, dnsupdate.Options{})},
				{p.open(t, dnsupdate.Options{}), p.open(t, dnsupdate.Options{})},
			} {
				if p.alone && len(accounts) > 1 {
					continue // the caller sees to that: see TestCloudflareRival, TestPowerDNSRival
				}
				name := "_mta-sts.w" + strconv.Itoa(len(before)+len(accounts)) + "." + zone
				if before != "" {
					p.set(t, name, "TXT", quoted(before))
				}
				p.race(t, accounts, name, before)
			}
		}
	})
}

func (p *place) race(t *testing.T, accounts []dnsupdate.Account, name, before string) {
	t.Helper()
	errs := make([]error, 8)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			errs[i] = accounts[i%len(accounts)].Apply(t.Context(), change(name, sts("w"+strconv.Itoa(i)), before))
		})
	}
	wg.Wait()
	winner := slices.Index(errs, nil)
	for i, err := range errs {
		if i != winner {
			p.fails(t, err, dnsupdate.KindConflict)
		}
	}
	if winner < 0 {
		t.Fatal("nobody won")
	}
	p.wantData(t, name, quoted(sts("w"+strconv.Itoa(winner))))
}

// TestDryRun wants every write refused before it leaves, and said; what needs no write succeeds.
func TestDryRun(t *testing.T) {
	everywhere(t, func(t *testing.T, p *place) {
		var log bytes.Buffer
		a := p.open(t, dnsupdate.Options{DryRun: true, Log: slog.New(slog.NewTextHandler(&log, nil))})
		name := "_mta-sts.dry." + zone
		p.set(t, name, "TXT", quoted(sts("old")), `"stranger"`)
		written := p.count()
		for _, c := range []dnsupdate.Change{
			change(name, sts("now"), sts("old")), change(name, "", sts("old")), change("_mta-sts.dry2."+zone, sts("now")),
		} {
			err := a.Apply(t.Context(), c)
			p.fails(t, err, dnsupdate.KindDryRun)
			if !errors.Is(err, dnsupdate.ErrDryRun) {
				t.Errorf("errors.Is(%v, ErrDryRun) = false", err)
			}
		}
		apply(t, a, change(name, sts("old")))
		p.wantData(t, name, quoted(sts("old")), `"stranger"`)
		p.wantData(t, "_mta-sts.dry2."+zone)
		if p.count() != written {
			t.Errorf("sent %d writes, want none", p.count()-written)
		}
		want := `msg="dry run: would write TXT" account=main zone=example.org record=_mta-sts.dry.example.org remove="[v=STSv1; id=old;]" add="v=STSv1; id=now;" ttl=2m0s`
		if !strings.Contains(log.String(), want) {
			t.Errorf("log = %s, want %s", log.String(), want)
		}
	})
}

// TestWildcard publishes at a wildcard: its names answer so at once, but those that have a record of their own, whatever
// comes to that and goes.
func TestWildcard(t *testing.T) {
	everywhere(t, func(t *testing.T, p *place) {
		const under = ".main.s.default.sts." + zone
		const tombstone = "stspub: no policy here"
		a := p.open(t, dnsupdate.Options{})
		apply(t, a, change("*"+under, sts("s1")))
		p.wantData(t, "*"+under, quoted(sts("s1")))
		for _, step := range []struct {
			name, remove, add string
			detached, other   string
		}{
			{"detached" + under, "", sts("own"), sts("own"), sts("s1")},
			{"*" + under, sts("s1"), sts("s2"), sts("own"), sts("s2")},
			{"detached" + under, sts("own"), tombstone, tombstone, sts("s2")},
			{"*" + under, sts("s2"), sts("s3"), tombstone, sts("s3")},
			{"detached" + under, tombstone, sts("own2"), sts("own2"), sts("s3")},
			{"detached" + under, sts("own2"), "", sts("s3"), sts("s3")},
			{"detached" + under, "", tombstone, tombstone, sts("s3")},
			{"detached" + under, tombstone, "", sts("s3"), sts("s3")},
		} {
			var remove []string
			if step.remove != "" {
				remove = []string{step.remove}
			}
			apply(t, a, change(step.name, step.add, remove...))
			p.wantData(t, "detached"+under, quoted(step.detached))
			p.wantData(t, "other"+under, quoted(step.other))
		}
		// The values of one name are not those of the other.
		apply(t, a, change("detached"+under, "", sts("s3")))
		p.wantData(t, "*"+under, quoted(sts("s3")))
		apply(t, a, change("*"+under, "", sts("s3")))
		p.wantData(t, "other"+under)
	})
}

// TestCredentials has some that are expired, in an account that could write before.
func TestCredentials(t *testing.T) {
	everywhere(t, func(t *testing.T, p *place) {
		name := "_mta-sts." + zone
		apply(t, p.open(t, dnsupdate.Options{}), change(name, sts("old")))
		q := *p
		q.spoil(&q.config)
		e := q.fails(t, q.open(t, dnsupdate.Options{}).Apply(t.Context(), change(name, sts("now"), sts("old"))), dnsupdate.KindAuth)
		if !strings.Contains(e.Error(), "; ") {
			t.Errorf("%v: does not say what to do", e)
		}
		p.wantData(t, name, quoted(sts("old")))
	})
}

// TestTrouble has requests befallen by what happens on the way, and repeats the change afterwards.
func TestTrouble(t *testing.T) {
	tests := map[string]struct {
		trouble
		http  bool // only an HTTP API has it
		kind  dnsupdate.Kind
		wait  time.Duration
		wrote bool // all the same
	}{
		"429": {
			trouble: trouble{status: 429, after: "1"}, http: true, kind: dnsupdate.KindRateLimited, wait: time.Second,
		},
		"502 in HTML": {trouble: trouble{status: 502, body: html502}, http: true, kind: dnsupdate.KindUnavailable},
		"200 in HTML": {trouble: trouble{status: 200, body: html502}, http: true, kind: dnsupdate.KindUnavailable},
		"no answer":   {trouble: trouble{silent: true}, kind: dnsupdate.KindUnavailable},
		"lost answer": {trouble: trouble{cut: true}, kind: dnsupdate.KindUnavailable},
		"429 late":    {trouble: trouble{write: true, status: 429, after: "1"}, http: true, kind: dnsupdate.KindRateLimited, wait: time.Second},
		"502 late":    {trouble: trouble{write: true, status: 502, body: html502}, http: true, kind: dnsupdate.KindUnavailable},
		"silent late": {trouble: trouble{write: true, silent: true}, kind: dnsupdate.KindUnavailable},
		"wrote, lost": {trouble: trouble{write: true, cut: true}, kind: dnsupdate.KindUnavailable, wrote: true},
	}
	everywhere(t, func(t *testing.T, p *place) {
		for name, tt := range tests {
			if tt.http && p.wire == nil {
				continue
			}
			t.Run(name, func(t *testing.T) {
				record := "_mta-sts." + strings.NewReplacer(" ", "-", ",", "").Replace(name) + "." + zone
				p.set(t, record, "TXT", quoted(sts("old")), `"stranger"`)
				a, c := p.behind(t, tt.trouble), change(record, sts("now"), sts("old"))
				ctx, cancel := t.Context(), func() {}
				if tt.silent {
					ctx, cancel = context.WithTimeout(ctx, 500*time.Millisecond)
				}
				e := p.fails(t, a.Apply(ctx, c), tt.kind)
				cancel()
				if e.RetryAfter != tt.wait || tt.write != (e.Op == "write") {
					t.Errorf("%v: op %s, RetryAfter %v, want %v", e, e.Op, e.RetryAfter, tt.wait)
				}
				// A server that nobody heard an answer of may have written.
				if want := []string{quoted(sts("old")), `"stranger"`}; !tt.wrote && (!tt.silent || p.wire != nil) {
					p.wantData(t, record, want...)
				}
				written := p.count()
				if tt.wait > 0 {
					a = p.open(t, dnsupdate.Options{}) // this one need not wait
				}
				apply(t, a, c)
				p.wantData(t, record, quoted(sts("now")), `"stranger"`)
				if tt.wrote && p.count() != written {
					t.Errorf("wrote again what was there")
				}
			})
		}
	})
}

// TestBadChange is refused before anybody is asked.
func TestBadChange(t *testing.T) {
	t.Parallel()
	_, p := cloudflarePlace(t)
	a := p.open(t, dnsupdate.Options{})
	tests := map[string]struct {
		change func(*dnsupdate.Change)
		want   string
	}{
		"quote":     {func(c *dnsupdate.Change) { c.Add = `v=STSv1; id="a";` }, `value "v=STSv1; id=\"a\";": a character that would need an escape`},
		"umlaut":    {func(c *dnsupdate.Change) { c.Add = "ä" }, `value "ä": a character that would need an escape`},
		"long":      {func(c *dnsupdate.Change) { c.Add = strings.Repeat("x", 256) }, "the value has 256 octets, more than 255"},
		"TTL":       {func(c *dnsupdate.Change) { c.TTL = 0 }, "TTL 0s: shorter than a second"},
		"long name": {func(c *dnsupdate.Change) { c.Name = strings.Repeat("a.", 130) + zone }, "the name has 271 octets, more than 253"},
	}
	for name, tt := range tests {
		c := change("_mta-sts."+zone, sts("now"))
		tt.change(&c)
		err := a.Apply(t.Context(), c)
		if e := p.fails(t, err, dnsupdate.KindRefused); e.Err.Error() != tt.want {
			t.Errorf("%s: %q, want %q", name, e.Err, tt.want)
		}
	}
}
