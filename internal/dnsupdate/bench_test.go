package dnsupdate_test

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/dnsupdate"
	"github.com/stspub/stspub/internal/lab"
	"github.com/stspub/stspub/internal/lab/labtest"
)

const (
	benchNames   = 100_000
	benchCallers = 1000
)

// BenchmarkRotate100k rotates 100,000 names of a zone on a real server, by 1000 callers at a time. One iteration is all
// of them: use -benchtime=1x.
func BenchmarkRotate100k(b *testing.B) {
	for _, start := range []func(testing.TB, ...lab.Zone) *labtest.DNSServer{labtest.StartBIND, labtest.StartKnot} {
		s := start(b, manyRecords(benchNames))
		b.Run(s.Program, func(b *testing.B) { rotateAll(b, s.Account("main"), s) })
	}
}

// manyRecords is a zone with records named as those of publish = "alias" are.
func manyRecords(names int) lab.Zone {
	var text strings.Builder
	for i := range names {
		fmt.Fprintf(&text, "%s 300 TXT \"%s\"\n", strings.TrimSuffix(benchName(i), "."+zone), benchValue(0, i))
	}
	return lab.Zone{Name: zone, Text: text.String()}
}

func benchName(i int) string { return fmt.Sprintf("abcdefghijklmnopqrstu%05d.d.default.%s", i, zone) }

func benchValue(generation, i int) string {
	return fmt.Sprintf("v=STSv1; id=20261121%06d%08x;", generation, i)
}

func rotateAll(b *testing.B, account config.Account, s *labtest.DNSServer) {
	m := dnsupdate.NewMetrics()
	a, err := dnsupdate.Open(account, dnsupdate.Options{Metrics: m})
	if err != nil {
		b.Fatal(err)
	}
	generation := 0
	start := time.Now()
	for b.Loop() {
		var next atomic.Int64
		var wg sync.WaitGroup
		for range benchCallers {
			wg.Go(func() {
				for i := int(next.Add(1)) - 1; i < benchNames; i = int(next.Add(1)) - 1 {
					c := change(benchName(i), benchValue(generation+1, i), benchValue(generation, i))
					if err := a.Apply(b.Context(), c); err != nil {
						b.Errorf("Apply(%s): %v", c.Name, err)
						return
					}
				}
			})
		}
		wg.Wait()
		if b.Failed() {
			b.Fatal(s.Log())
		}
		generation++
	}
	took := time.Since(start)
	for _, i := range []int{0, benchNames / 2, benchNames - 1} {
		(&place{addr: s.Addr}).wantData(b, benchName(i), quoted(benchValue(generation, i)))
	}
	b.ReportMetric(float64(generation*benchNames)/took.Seconds(), "changes/s")
	b.ReportMetric(metrics(b, m)["stspub_dns_requests_total account=main"]/float64(generation), "requests/op")
}
