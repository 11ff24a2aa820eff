package store_test

import (
	"bytes"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/lab/labtest"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

func BenchmarkPostgresDeclare100k(b *testing.B) {
	server := labtest.StartPostgreSQL(b)
	d := declaration(100_000)
	b.Run("new", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			s := node(b, server.Database(b))
			b.StartTimer()
			if _, err := s.Declare(b.Context(), d, time.Now()); err != nil {
				b.Fatal(err)
			}
		}
	})
	s := node(b, server.Database(b))
	fill(b, s, 100_000)
	b.Run("unchanged", func(b *testing.B) {
		for b.Loop() {
			if c, err := s.Declare(b.Context(), d, time.Now()); err != nil || c != (store.Change{}) {
				b.Fatal(c, err)
			}
		}
	})
	b.Run("policy", func(b *testing.B) {
		for b.Loop() {
			d.MXSets[0].Policy.MaxAge++
			if c, err := s.Declare(b.Context(), d, time.Now()); err != nil || c.Changed != 100_000 {
				b.Fatal(c, err)
			}
		}
	})
}

// BenchmarkPostgresDomain runs among 100,000 domains.
func BenchmarkPostgresDomain(b *testing.B) {
	server := labtest.StartPostgreSQL(b)
	s := node(b, server.Database(b))
	fill(b, s, 100_000)
	text := string(bytes.Repeat([]byte("mx: mx.example.net\r\n"), 15))
	b.Run("Claim50", func(b *testing.B) {
		for b.Loop() {
			if got, err := s.Claim(b.Context(), time.Now(), 0, 50); err != nil || len(got) != 50 {
				b.Fatal(len(got), err)
			}
		}
	})
	var next atomic.Int64
	for name, change := range map[string]func(d *store.Domain, n int){
		"Save16":   func(d *store.Domain, n int) { d.State.Failures = n },
		"Step16":   func(d *store.Domain, n int) { d.State.Step = []string{"settle", "live"}[n%2] },
		"Served16": func(d *store.Domain, n int) { d.State.Served = fmt.Sprint(text, n) },
	} {
		b.Run(name, func(b *testing.B) { // by 16 at the same time
			b.SetParallelism(8)
			b.RunParallel(func(pb *testing.PB) {
				d, err := s.Domain(b.Context(), policygen.Name(fmt.Sprintf("d%06d.example", next.Add(1))))
				if err != nil {
					b.Error(err)
					return
				}
				for n := 0; pb.Next(); n++ {
					change(&d, n)
					if err := s.Save(b.Context(), &d, time.Now()); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
	b.Run("Read", func(b *testing.B) {
		for b.Loop() {
			if _, err := s.Domain(b.Context(), "d050000.example"); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Each", func(b *testing.B) {
		for b.Loop() {
			if err := s.EachDomain(b.Context(), func(store.Domain) error { return nil }); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100_000, "ns/domain")
	})
}
