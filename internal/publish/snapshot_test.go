package publish

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"sync"
	"testing"

	"github.com/stspub/stspub/internal/policygen"
)

func TestSnapshotFindsPolicyHostHoweverItIsWritten(t *testing.T) {
	t.Parallel()
	s := NewSnapshot()
	s.Set("example.org", "A")
	s.Set("sub.example.org", "B")

	tests := []struct{ host, want string }{
		{"mta-sts.example.org", "A"},
		{"mta-sts.example.org.", "A"},
		{"MTA-STS.Example.ORG", "A"},
		{"Mta-Sts.EXAMPLE.org.", "A"},
		{"mta-sts.sub.example.org", "B"},

		{"", ""},
		{".", ""},
		{"mta-sts", ""},
		{"mta-sts.", ""},
		{"example.org", ""},
		{"mta-sts.org", ""},
		{"mta-stsxexample.org", ""},
		{"mta-sts.example.org..", ""},
		{"mta-sts..example.org", ""},
		{"mta-sts.example.org:443", ""},      // the port is the caller's
		{"mta-sts.other.example.org", ""},    // RFC 8461, Section 3.4: no inheritance
		{"mta-sts.mta-sts.example.org", ""},  //
		{"x.mta-sts.example.org", ""},        //
		{"mta-sts.example.org\x00", ""},      //
		{"mta-sts.xn--mxample-n4a.org.", ""}, //
	}
	for _, tt := range tests {
		page, found := s.Policy(tt.host)
		if found != (tt.want != "") || found && page.Text != tt.want {
			t.Errorf("Policy(%q) = %v, %v, want %q", tt.host, page, found, tt.want)
		}
	}
}

func TestSnapshotSetReplacesAndRemoves(t *testing.T) {
	t.Parallel()
	s := NewSnapshot()
	s.Set("example.org", "") // nothing to remove
	s.Set("example.org", "first")
	before, _ := s.Policy("mta-sts.example.org")
	s.Set("example.org", "second")
	after, _ := s.Policy("mta-sts.example.org")

	if before.Text != "first" || after.Text != "second" || after.Length[0] != "6" {
		t.Errorf("Policy = %+v, then %+v, want first, then second of length 6", before, after)
	}
	if s.Len() != 1 {
		t.Errorf("Len() = %d, want 1", s.Len())
	}
	s.Set("example.org", "")
	if page, found := s.Policy("mta-sts.example.org"); found {
		t.Errorf("Policy = %+v after removal, want none", page)
	}
	if s.Len() != 0 {
		t.Errorf("Len() = %d after removal, want 0", s.Len())
	}
}

func TestSnapshotSharesPagesAndReleasesThem(t *testing.T) {
	t.Parallel()
	s := NewSnapshot()
	for i := range 100 {
		s.Set(policygen.Name(fmt.Sprintf("d%d.example", i)), "shared "+strconv.Itoa(i%2))
	}
	a, _ := s.Policy("mta-sts.d0.example")
	b, _ := s.Policy("mta-sts.d98.example")
	if a != b {
		t.Error("equal texts have different pages")
	}
	if len(s.pages) != 2 {
		t.Errorf("%d pages for 2 texts", len(s.pages))
	}
	for i := range 100 {
		s.Set(policygen.Name(fmt.Sprintf("d%d.example", i)), "shared 0")
	}
	if len(s.pages) != 1 || s.pages["shared 0"].uses != 100 {
		t.Errorf("pages = %v, want one with 100 uses", s.pages)
	}
	for i := range 100 {
		s.Set(policygen.Name(fmt.Sprintf("d%d.example", i)), "")
	}
	if len(s.pages) != 0 {
		t.Errorf("%d pages left when nobody is served", len(s.pages))
	}
}

// TestSnapshotBehavesLikeAMap compares long random runs with the simplest thing that is right, with enough names to
// have many in a shard.
func TestSnapshotBehavesLikeAMap(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	s, model := NewSnapshot(), map[policygen.Name]string{}
	name := func() policygen.Name { return policygen.Name(fmt.Sprintf("n%d.example", rng.IntN(60_000))) }
	for range 200_000 {
		n := name()
		text := []string{"", "a", "b", "c"}[rng.IntN(4)]
		s.Set(n, text)
		if text == "" {
			delete(model, n)
		} else {
			model[n] = text
		}
	}
	if s.Len() != len(model) || len(model) < 30_000 {
		t.Fatalf("Len() = %d, want %d (and at least 30000)", s.Len(), len(model))
	}
	for i := range 60_000 {
		n := policygen.Name(fmt.Sprintf("n%d.example", i))
		page, found := s.Policy("mta-sts." + string(n))
		want, wanted := model[n]
		if found != wanted || found && page.Text != want {
			t.Fatalf("Policy(%s) = %v, %v, want %q, %v", n, page, found, want, wanted)
		}
	}
}

// TestSnapshotReadersSeeWholeStates lets readers watch names whose text is never absent while writers change them.
func TestSnapshotReadersSeeWholeStates(t *testing.T) {
	t.Parallel()
	s := NewSnapshot()
	names := make([]policygen.Name, 50)
	for i := range names {
		names[i] = policygen.Name(fmt.Sprintf("d%d.example", i))
		s.Set(names[i], "0")
	}
	var writers, readers sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		writers.Go(func() {
			for i := range 2000 {
				s.Set(names[i%len(names)], strconv.Itoa(i))
				s.Set(policygen.Name(fmt.Sprintf("new%d.example", i)), "x")
			}
		})
	}
	for range 2 {
		readers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				page, found := s.Policy("mta-sts." + string(names[i%len(names)]))
				if !found || page.Length[0] != strconv.Itoa(len(page.Text)) {
					t.Errorf("Policy(%s) = %+v, %v during changes", names[i%len(names)], page, found)
					return
				}
			}
		})
	}
	writers.Wait()
	close(done)
	readers.Wait()
	if want := len(names) + 2000; s.Len() != want {
		t.Errorf("Len() = %d, want %d", s.Len(), want)
	}
}

func TestSnapshotPolicyAllocatesNothing(t *testing.T) {
	s := NewSnapshot()
	s.Set("example.org", "A")
	for _, host := range []string{"mta-sts.example.org", "mta-sts.example.org.", "mta-sts.example.net", "www.example.org", ""} {
		if n := testing.AllocsPerRun(100, func() { s.Policy(host) }); n != 0 {
			t.Errorf("Policy(%q) allocates %v times", host, n)
		}
	}
}

// hosts returns n names and their policy hosts.
func hosts(n int) ([]policygen.Name, []string) {
	names, hosts := make([]policygen.Name, n), make([]string, n)
	for i := range names {
		hosts[i] = fmt.Sprintf("mta-sts.customer-%d.example.com", i)
		names[i] = policygen.Name(hosts[i][len("mta-sts."):])
	}
	return names, hosts
}

func BenchmarkSnapshotPolicy(b *testing.B) {
	for _, n := range []int{10, 1_000_000} {
		names, hosts := hosts(n)
		s := NewSnapshot()
		for i, name := range names {
			s.Set(name, "text "+strconv.Itoa(i%10))
		}
		rand.Shuffle(n, func(i, j int) { hosts[i], hosts[j] = hosts[j], hosts[i] })
		b.Run(fmt.Sprintf("hit/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if _, found := s.Policy(hosts[i]); !found {
					b.Fatal(hosts[i], "not found")
				}
				if i++; i == n {
					i = 0
				}
			}
		})
		b.Run(fmt.Sprintf("miss/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, found := s.Policy("mta-sts.nobody.example.net"); found {
					b.Fatal("found")
				}
			}
		})
	}
}

func BenchmarkSnapshotSet(b *testing.B) {
	for _, n := range []int{10, 1_000_000} {
		names, _ := hosts(n)
		s := NewSnapshot()
		for _, name := range names {
			s.Set(name, "before")
		}
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				s.Set(names[i%n], strconv.Itoa(i/n%2))
				i++
			}
		})
	}
}

// BenchmarkSnapshotFill reports what a start with a million domains costs, and the memory a name beside its own bytes.
func BenchmarkSnapshotFill(b *testing.B) {
	names, _ := hosts(1_000_000)
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		s := NewSnapshot()
		for _, name := range names {
			s.Set(name, "text")
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(len(names)), "B/name")
		runtime.KeepAlive(s)
	}
}
