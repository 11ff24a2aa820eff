package publish

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/store"
)

const (
	rptA     = "v=TLSRPTv1; rua=mailto:a@x.test"
	rptB     = "v=TLSRPTv1; rua=mailto:b@x.test"
	rptTheir = "v=TLSRPTv1; rua=mailto:theirs@x.test"
)

// reportServers are name servers that answer values, each those of its own; "?" is one that does not answer.
func reportServers(values ...[]string) TXT {
	t := TXT{Zone: "x.test"}
	for i, v := range values {
		s := Server{Name: "ns" + string(rune('1'+i)), STS: v}
		if slices.Equal(v, []string{"?"}) {
			s.STS, s.Err = nil, "time-out"
		}
		t.Servers = append(t.Servers, s)
	}
	return t
}

// seenBy fills in what the driver knows of the values.
func seenBy(s store.Report, t TXT, delegated bool) reportSeen {
	written := reportValues(s.Text)
	t.Ours = slices.DeleteFunc(t.sts(), func(v string) bool { return !slices.Contains(written, v) })
	return reportSeen{TXT: t, Delegation: Delegation{Ours: delegated, Reason: "no CNAME"}}
}

func TestNextReport(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	type servers = [][]string
	const record = "_smtp._tls.x.test"
	right := store.Report{Record: record, Zone: "x.test", Text: rptA, Wrote: ago(time.Hour), Verified: ago(time.Hour)}
	wrote := store.Report{Record: record, Zone: "x.test", Text: rptA, Wrote: ago(30 * time.Second)}
	changed := right
	changed.Text = rptA + "\n" + rptB
	for _, c := range []struct {
		name string
		want reportWant
		s    store.Report
		seen servers

		add      string
		remove   []string
		verified bool
		problem  string // the beginning
		text     string // as remembered
		again    bool   // looked at before the domain is
	}{
		{"absent", reportWant{Text: rptA}, store.Report{}, servers{{}, {}}, rptA, nil, false, "waiting for every", rptA, true},
		{"absent, one server silent", reportWant{Text: rptA}, store.Report{}, servers{{}, {"?"}}, rptA, nil, false, "waiting for every", rptA, true},
		{"no server answers", reportWant{Text: rptA}, store.Report{}, servers{{"?"}, {"?"}}, "", nil, false, "waiting for every", "", true},
		{"right", reportWant{Text: rptA}, right, servers{{rptA}, {rptA}}, "", nil, true, "", rptA, false},
		{"just written, lagging", reportWant{Text: rptA}, wrote, servers{{rptA}, {}}, "", nil, false, "waiting for every", rptA, true},
		{"a server silent", reportWant{Text: rptA}, right, servers{{rptA}, {"?"}}, "", nil, true, "waiting for every", rptA, true},
		{"gone", reportWant{Text: rptA}, right, servers{{}, {}}, rptA, nil, false, "waiting for every", rptA, true},
		{"changed", reportWant{Text: rptB}, right, servers{{rptA}, {rptA}}, rptB, []string{rptA}, false, "waiting for every", rptA + "\n" + rptB, true},
		{"an old one is back", reportWant{Text: rptB}, changed, servers{{rptA}, {rptA}}, rptB, []string{rptA}, false, "waiting for every", rptA + "\n" + rptB, true},
		{"changed back", reportWant{Text: rptA}, changed, servers{{rptB}, {rptB}}, rptA, []string{rptB}, false, "waiting for every", rptB + "\n" + rptA, true},
		{"two of ours", reportWant{Text: rptB}, changed, servers{{rptA, rptB}}, rptB, []string{rptA}, false, "waiting for every", rptA + "\n" + rptB, true},
		{"theirs", reportWant{Text: rptA}, store.Report{}, servers{{rptTheir}}, "", nil, false, "somebody else's TLSRPT record stands at " + record + `: "` + rptTheir, "", false},
		{"theirs at one server", reportWant{Text: rptA}, right, servers{{rptA}, {rptTheir}}, "", nil, false, "somebody else's TLSRPT record stands at " + record + " beside ours", rptA, false},
		{"theirs in place of ours", reportWant{Text: rptA}, right, servers{{rptTheir}, {rptTheir}}, "", nil, false, "somebody else's", rptA, false},
		{"theirs, in our words", reportWant{Text: rptA}, store.Report{}, servers{{rptA}, {rptA}}, "", nil, true, "", "", false},
		{"alias without its CNAME", reportWant{Text: rptA, Alias: true}, right, servers{{rptA}}, "", nil, true, "no CNAME", rptA, false},
		{"by hand, missing", reportWant{Text: rptA, Manual: true}, store.Report{}, servers{{}}, "", nil, false, `waiting for: ` + record + ` TXT "` + rptA + `", last seen no such record`, "", false},
		{"by hand, other", reportWant{Text: rptA, Manual: true}, store.Report{}, servers{{rptTheir}}, "", nil, false, `waiting for: ` + record + ` TXT "` + rptA + `", last seen ["` + rptTheir, "", false},
		{"by hand, right", reportWant{Text: rptA, Manual: true}, store.Report{}, servers{{rptA}}, "", nil, true, "", "", false},
		{"unwanted", reportWant{}, right, servers{{rptA}, {rptA}}, "", []string{rptA}, false, "the TLSRPT record at " + record + " is deleted; not every", rptA, true},
		{"unwanted, theirs beside", reportWant{}, right, servers{{rptA, rptTheir}}, "", []string{rptA}, false, "the TLSRPT record at " + record + " is deleted", rptA, true},
		{"unwanted, only theirs", reportWant{}, right, servers{{rptTheir}}, "", nil, false, "", "", false},
		{"unwanted, held", reportWant{Hold: "the clock jumped"}, right, servers{{rptA}}, "", nil, true, "the TLSRPT record is to be deleted; the clock jumped", rptA, false},
		{"unwanted, gone", reportWant{}, right, servers{{}, {}}, "", nil, false, "", "", false},
		{"unwanted, a server silent", reportWant{}, right, servers{{}, {"?"}}, "", nil, true, "the TLSRPT record is to be deleted; ", rptA, true},
		{"unwanted, written just now", reportWant{}, wrote, servers{{}, {}}, "", nil, false, "the TLSRPT record at " + record + " is deleted", rptA, true},
		{"never wanted", reportWant{}, store.Report{}, servers{{rptTheir}}, "", nil, false, "", "", false},
	} {
		c.want.Record, c.want.Owner = record, record
		got := nextReport(c.want, c.s, seenBy(c.s, reportServers(c.seen...), false), now)
		if got.Write != (c.add != "" || c.remove != nil) || got.Add != c.add || !slices.Equal(got.Remove, c.remove) {
			t.Errorf("%s: write %t, add %q, remove %q, want add %q, remove %q", c.name, got.Write, got.Add, got.Remove, c.add, c.remove)
		}
		s := got.State
		if s.Text != c.text || s.Verified.IsZero() == c.verified || !strings.HasPrefix(s.Problem, c.problem) || (s.Problem == "") != (c.problem == "") {
			t.Errorf("%s: state %+v, want text %q, verified %t, problem %q", c.name, s, c.text, c.verified, c.problem)
		}
		if (got.After > 0) != c.again || (s.Problem != "") != (s.Failures > 0) {
			t.Errorf("%s: again after %s, %d failures, want it before the domain: %t", c.name, got.After, s.Failures, c.again)
		}
		if c.text == "" && c.want.Text == "" && s != (store.Report{}) {
			t.Errorf("%s: state %+v, want nothing left", c.name, s)
		}
	}
}

// Servers that never agree are asked to write once in a minute at first, and then with the domain.
func TestNextReportRests(t *testing.T) {
	t.Parallel()
	begin := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	now, writes, looks := begin, 0, 0
	s := store.Report{Record: "r", Zone: "x.test", Text: rptA}
	for now.Sub(begin) < 24*time.Hour {
		d := nextReport(reportWant{Record: "r", Text: rptA}, s, seenBy(s, reportServers([]string{rptA}, nil), true), now)
		looks++
		if d.Write {
			writes++
		}
		s = d.State
		if d.After == 0 {
			d.After = time.Hour // the domain's own
		}
		now = now.Add(d.After)
	}
	if writes < 20 || writes > 60 || looks > 100 {
		t.Errorf("a day of a lagging server: %d writes, %d looks, want some dozens", writes, looks)
	}
}

// Whatever happens to the zone and to what is wanted: nothing of somebody else's is ever removed, nothing is added beside
// it, the name never holds two records by our hand, and when it is left alone it becomes what is wanted.
func TestNextReportNeverTouchesOthers(t *testing.T) {
	t.Parallel()
	const record = "_smtp._tls.x.test"
	wants := []string{"", rptA, rptB, "v=TLSRPTv1; rua=mailto:c@x.test"}
	for seed := range uint64(1000) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
		var s store.Report
		zone, wroteEver := []string{}, map[string]bool{}
		want := wants[rnd.IntN(len(wants))]
		step := func(answers bool) {
			seen := reportServers(slices.Clone(zone), slices.Clone(zone))
			if !answers {
				seen.Servers[1] = Server{Name: "ns2", Err: "time-out"}
			}
			d := nextReport(reportWant{Record: record, Owner: record, Text: want}, s, seenBy(s, seen, true), now)
			crash := rnd.IntN(5) // 0: before the commit, 1: before the write, 2: the answer is lost
			if crash > 0 || !d.Write {
				s = d.State
			}
			for _, v := range d.Remove {
				if !wroteEver[v] {
					t.Fatalf("seed %d: %q is removed, which was not written from here", seed, v)
				}
			}
			if d.Write && crash > 1 {
				if d.Add != "" && slices.Contains(zone, rptTheir) {
					t.Fatalf("seed %d: %q is added beside somebody else's", seed, d.Add)
				}
				zone = slices.DeleteFunc(zone, func(v string) bool { return slices.Contains(d.Remove, v) || v == d.Add })
				if d.Add != "" {
					wroteEver[d.Add] = true
					zone = append(zone, d.Add)
				}
				if len(zone) > 1 && !slices.Contains(zone, rptTheir) {
					t.Fatalf("seed %d: zone %q", seed, zone)
				}
			}
			now = now.Add(max(d.After, time.Second))
		}
		for range 40 {
			switch rnd.IntN(8) {
			case 0:
				want = wants[rnd.IntN(len(wants))]
			case 1:
				zone = nil // deleted by hand
			case 2:
				zone = append(slices.DeleteFunc(zone, func(v string) bool { return v == rptTheir }), rptTheir)
			case 3:
				zone = slices.DeleteFunc(zone, func(v string) bool { return v == rptTheir })
			case 4:
				now = now.Add(time.Duration(rnd.IntN(300)-100) * time.Second) // the clock is set
			}
			step(rnd.IntN(3) > 0)
		}
		zone = slices.DeleteFunc(zone, func(v string) bool { return v == rptTheir })
		for range 60 {
			now = now.Add(time.Minute)
			step(true)
		}
		expected := []string{want}
		if want == "" {
			expected = nil
		}
		if !slices.Equal(zone, expected) || want == "" && s != (store.Report{}) || want != "" && s.Problem != "" {
			t.Fatalf("seed %d: left alone, zone %q, state %+v, want %q", seed, zone, s, want)
		}
	}
}
