package store_test

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/stspub/stspub/internal/lab/labtest"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

// follower keeps what it is shown by one who goes on from the last number, as webhooks and nodes do.
type follower struct {
	s      *store.Postgres
	event  int64 // the last one shown
	change int64 // the last one known
	events []store.Event
	served map[policygen.Name]string
}

// look goes on from where the last one ended.
func (f *follower) look(ctx context.Context) error {
	page, err := f.s.Events(ctx, store.EventFilter{All: true}, f.event, 100)
	if err != nil {
		return err
	}
	f.events = append(f.events, page...)
	if len(page) > 0 {
		f.event = page[len(page)-1].Seq
	}
	f.change, err = f.s.ServedSince(ctx, f.change, func(name policygen.Name, text string) error {
		f.served[name] = text
		return nil
	})
	return err
}

// postgresOrder has many writers on several nodes append events and change what is served, in transactions of all sizes,
// and one who follows: he misses nothing, for numbers become visible in their order.
func postgresOrder(t *testing.T, server *labtest.PostgreSQL) {
	const domains, writers, steps = 240, 12, 3
	url := server.Database(t)
	nodes := []*store.Postgres{node(t, url), node(t, url), node(t, url)}
	fill(t, nodes[0], domains)
	write := func(s *store.Postgres, i int) error {
		d, err := s.Domain(t.Context(), policygen.Name(fmt.Sprintf("d%06d.example", i)))
		for n := 0; n < steps && err == nil; n++ {
			d.State.Step, d.State.Served = fmt.Sprint("step", n), fmt.Sprintf("policy %d of %d", min(n, 1), i) // the last is an event alone
			err = s.Save(t.Context(), &d, time.Now())
		}
		if err == nil && i%8 == 0 { // many at once
			err = s.AppendEvents(t.Context(), slices.Repeat([]store.Event{{Kind: "k", Name: string(d.Name), Text: "many"}}, 40+i))
		}
		if err == nil && i%8 == 1 {
			err = s.SaveCertificate(t.Context(), store.Certificate{Name: d.Name.PolicyHost(), Key: []byte("key"), Chain: [][]byte{[]byte("leaf")}})
		}
		return err
	}
	writing, done := context.WithCancel(t.Context())
	follows := follower{s: node(t, url), served: make(map[policygen.Name]string)}
	var following errgroup.Group
	looks := 0
	following.Go(func() error {
		for ; writing.Err() == nil; looks++ {
			if err := follows.look(t.Context()); err != nil {
				return err
			}
		}
		return nil
	})
	var g errgroup.Group
	for w := range writers {
		g.Go(func() error {
			for i := w; i < domains; i += writers {
				if err := write(nodes[w%len(nodes)], i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err := g.Wait()
	done()
	if err := cmp.Or(err, following.Wait()); err != nil {
		t.Fatal(err)
	}
	for range 100 { // what came after his last look
		if err := follows.look(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	all, err := nodes[0].Events(t.Context(), store.EventFilter{All: true}, 0, 1_000_000)
	if err != nil {
		t.Fatal(err)
	}
	want := make(map[policygen.Name]string)
	if err := nodes[0].EachServed(t.Context(), func(name, text []byte) error {
		want[policygen.Name(name)] = string(text)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	seqs := func(events []store.Event) (all []int64) {
		for _, e := range events {
			all = append(all, e.Seq)
		}
		return all
	}
	t.Logf("%d events and %d texts in %d looks", len(all), len(want), looks)
	if len(all) < domains*(1+steps) || len(want) != domains {
		t.Fatalf("there are %d events and %d texts, want more", len(all), len(want))
	}
	if !slices.Equal(seqs(follows.events), seqs(all)) {
		t.Errorf("the follower was shown %d of %d events", len(follows.events), len(all))
	}
	if !maps.Equal(follows.served, want) {
		t.Errorf("the follower knows %d texts, not as they are in the store", len(follows.served))
	}
}
