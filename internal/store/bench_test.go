package store_test

import (
	"bytes"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

func BenchmarkDeclare100k(b *testing.B) {
	benchDeclare(b, func(b *testing.B) store.Store { return open(b, filepath.Join(b.TempDir(), "stspub.db")) })
}

// benchDeclare declares 100,000 domains, in an empty store and in one that has them.
func benchDeclare(b *testing.B, empty func(b *testing.B) store.Store) {
	d := declaration(100_000)
	b.Run("new", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			s := empty(b)
			b.StartTimer()
			if _, err := s.Declare(b.Context(), d, time.Now()); err != nil {
				b.Fatal(err)
			}
		}
	})
	s := empty(b)
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

// BenchmarkDomain runs among 100,000 domains.
func BenchmarkDomain(b *testing.B) {
	s := open(b, filepath.Join(b.TempDir(), "stspub.db"))
	declare(b, s, 100_000)
	text := string(bytes.Repeat([]byte("mx: mx.example.net\r\n"), 15))
	b.Run("Claim", func(b *testing.B) {
		for b.Loop() {
			if got, err := s.Claim(b.Context(), time.Now(), 0, 1); err != nil || len(got) != 1 {
				b.Fatal(len(got), err)
			}
		}
	})
	b.Run("Save", func(b *testing.B) {
		d, err := s.Domain(b.Context(), "d050000.example")
		if err != nil {
			b.Fatal(err)
		}
		for n := 0; b.Loop(); n++ {
			d.State.Served, d.State.Record = fmt.Sprint(text, n), "r"
			d.State.Intended = fmt.Sprintf("%d.%d", time.Now().UnixNano(), n)
			if err := s.Save(b.Context(), &d, time.Now()); err != nil {
				b.Fatal(err)
			}
		}
	})
	var next atomic.Int64
	for name, change := range map[string]func(d *store.Domain){ // by 500 at the same time
		"SaveAtOnce": func(d *store.Domain) { d.State.Failures++ },
		"StepAtOnce": func(d *store.Domain) {
			d.State.Step = map[bool]string{true: "settle", false: "live"}[d.State.Step == "live"]
		},
	} {
		b.Run(name, func(b *testing.B) {
			b.SetParallelism(250)
			b.RunParallel(func(pb *testing.PB) {
				d, err := s.Domain(b.Context(), policygen.Name(fmt.Sprintf("d%06d.example", next.Add(1)%100_000)))
				if err != nil {
					b.Error(err)
					return
				}
				for pb.Next() {
					change(&d)
					if err := s.Save(b.Context(), &d, time.Now()); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
	benchRead(b, s)
}

// benchRead reads one domain, and all of 100,000.
func benchRead(b *testing.B, s store.Store) {
	b.Run("Read", func(b *testing.B) {
		for b.Loop() {
			if _, err := s.Domain(b.Context(), "d050000.example"); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Counts", func(b *testing.B) {
		for b.Loop() {
			if c, err := s.Counts(b.Context()); err != nil || len(c.Steps) == 0 {
				b.Fatal(c, err)
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

func BenchmarkEachCertificate(b *testing.B) {
	s := open(b, filepath.Join(b.TempDir(), "stspub.db"))
	const rows = 2000
	der := bytes.Repeat([]byte{0x30}, 1000)
	for i := range rows {
		c := store.Certificate{Name: fmt.Sprintf("mta-sts.d%d.example", i), Key: der[:138], Chain: [][]byte{der, der}}
		if err := s.SaveCertificate(b.Context(), c); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if err := s.EachCertificate(b.Context(), func(store.Certificate) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/rows, "ns/certificate")
}
