package dnsupdate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// txtRecord is a TXT record as a provider's API has it.
type txtRecord struct {
	id   string // where the API knows single records
	made string // when it was, sorting as text; empty: ids are numbers, and later ones larger
	data string // as the API writes it
	text string // without quotes and escapes
	ttl  int    // seconds
}

// txtAPI is what a provider's API can do about the TXT records of one name. Its errors hold a [*fault].
type txtAPI interface {
	// look returns the TXT records at Change.Name itself, or the fault that it is a CNAME.
	look(ctx context.Context, c Change) ([]txtRecord, error)
	// write makes a change that is planned on what look has found. At no time are there more or fewer rivals (see
	// [Change.rival]) in between than before or after. An API that compares and swaps returns [errSwapped] where something
	// else is there by now.
	write(ctx context.Context, c Change, found []txtRecord, p plan) error
}

// cloud looks, writes and looks again.
type cloud struct {
	api txtAPI
	// swaps is that the API compares and swaps: what it acknowledged is there, and another look is not needed.
	swaps bool
}

func (a *cloud) apply(ctx context.Context, c Change) error {
	var err error
	for try := range updateTries {
		if err = a.change(ctx, c); !errors.Is(err, errSwapped) {
			return err
		}
		if err := sleep(ctx, rand.N(100*time.Millisecond)<<try); err != nil {
			return err
		}
	}
	return &fault{op: opWrite, kind: KindConflict, err: fmt.Errorf("tried %d times: %w", updateTries, err)}
}

func (a *cloud) change(ctx context.Context, c Change) error {
	found, err := a.api.look(ctx, c)
	if err != nil {
		return err
	}
	p, err := c.plan(textsOf(found))
	if err != nil || p.empty() {
		return err
	}
	err = a.api.write(ctx, c, found, p)
	if errors.Is(err, errSwapped) {
		return err
	}
	if err == nil && !a.swaps {
		err = a.confirm(ctx, c)
	}
	if err != nil {
		return writing(err)
	}
	return nil
}

// confirm looks again: the API may have acknowledged and not done it, and another process may have written as well.
func (a *cloud) confirm(ctx context.Context, c Change) error {
	found, err := a.api.look(ctx, c)
	if err != nil {
		return err
	}
	p, conflict := c.plan(textsOf(found))
	switch {
	case conflict == nil && p.empty():
		return nil
	case conflict == nil:
		return faultf(KindUnavailable, "the API acknowledged the change and does not show it")
	}
	if r, ok := a.api.(recordwise); ok {
		if err := r.withdraw(ctx, c, found); err != nil {
			return err
		}
	}
	return conflict
}

func textsOf(rs []txtRecord) []string {
	out := make([]string, len(rs))
	for i, r := range rs {
		out[i] = r.text
	}
	return out
}

// whole is the record set that a change leads to, as an API that replaces whole sets is to be told, and its TTL in
// seconds. What stays goes along as the API wrote it; add is Change.Add as the API writes it.
func (p plan) whole(c Change, found []txtRecord, add string) (data []string, ttl int) {
	for i, r := range found {
		ttl = r.ttl
		if !slices.Contains(p.remove, i) {
			data = append(data, r.data)
		}
	}
	if p.add {
		return append(data, add), int(c.TTL / time.Second)
	}
	return data, ttl
}

// recordAPI is an API that knows single records, which it replaces in one step.
type recordAPI interface {
	look(ctx context.Context, c Change) ([]txtRecord, error)
	create(ctx context.Context, c Change) error
	modify(ctx context.Context, c Change, r txtRecord) error
	remove(ctx context.Context, c Change, r txtRecord) error
}

// recordwise makes changes record by record. Strangers are not sent, so they cannot be harmed.
type recordwise struct{ recordAPI }

// write makes the change. Where a record can be replaced, all others go before, so that there is always one.
func (w recordwise) write(ctx context.Context, c Change, found []txtRecord, p plan) error {
	keep := -1
	if p.add && len(p.remove) > 0 {
		keep = p.remove[max(0, slices.IndexFunc(p.remove, func(i int) bool { return c.rival(found[i].text) }))]
	}
	for _, i := range p.remove {
		if i == keep {
			continue
		}
		if err := w.remove(ctx, c, found[i]); err != nil {
			return err
		}
	}
	switch {
	case keep >= 0:
		return w.modify(ctx, c, found[keep])
	case p.add:
		return w.create(ctx, c)
	}
	return nil
}

// withdraw takes our record away if a foreign one is older. Two that create at once both see two records: the younger one
// goes again, by whoever made it.
func (w recordwise) withdraw(ctx context.Context, c Change, found []txtRecord) error {
	rivals := slices.DeleteFunc(slices.Clone(found), func(r txtRecord) bool { return !c.rival(r.text) })
	slices.SortFunc(rivals, func(x, y txtRecord) int {
		return cmp.Or(cmp.Compare(x.made, y.made), cmp.Compare(len(x.id), len(y.id)), cmp.Compare(x.id, y.id))
	})
	if i := slices.IndexFunc(rivals, func(r txtRecord) bool { return r.text == c.Add }); i > 0 {
		return w.remove(ctx, c, rivals[i])
	}
	return nil
}

// relative is the name below its zone; apex for the zone itself.
func (c Change) relative(apex string) string {
	if c.Name == c.Zone {
		return apex
	}
	return strings.TrimSuffix(c.Name, "."+c.Zone)
}

// textOf takes quotes and escapes away, where an API keeps TXT data as it was given, in quotes or not.
func textOf(data string) string {
	if strings.HasPrefix(data, `"`) {
		if s, err := parseTXT(data); err == nil {
			return s
		}
	}
	return data
}
