package httpd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

// Audit tells what happened. [store.Store] has it.
type Audit interface {
	Events(ctx context.Context, f store.EventFilter, after int64, n int) ([]store.Event, error)
	LastChange(ctx context.Context) (int64, error)
	Wait(ctx context.Context, after int64) error
}

const (
	// followEvery is the shortest time between two looks for one follower.
	followEvery = 200 * time.Millisecond
	// followBeat is how often a follower who hears nothing is sent an empty line, so that both ends learn of a connection
	// that is dead.
	followBeat = 15 * time.Second
)

// afterHeader is the number behind which an answer that follows begins.
const afterHeader = "Event-After"

func (a *admin) eventRoutes() {
	list := listed[store.Event](a, operation("list-events", http.MethodGet, "/v1/events", "What happened, oldest first"))
	list.Description = "With follow the answer goes on with what happens, a line each, until the client ends it or the server stops; " +
		"an empty line says that nothing did. The header " + afterHeader + " is the number that it begins behind: who got nothing before it " +
		"broke off asks again with that as after, and who did, with the seq of his last event. A number that the store " +
		"never gave is answered 410: it was put back to a copy."
	register(a, list, a.events)
}

type eventsInput struct {
	Tenant string    `query:"tenant" doc:"those of this tenant; without it those of the token's tenant, or for the service all"`
	Name   string    `query:"name" doc:"those of the domain, MX set, account, tenant, token or node of this name"`
	Kind   []string  `query:"kind" doc:"those of these kinds, with commas between them; what stands before the dot is all of them"`
	Since  time.Time `query:"since" doc:"those from then on (RFC 3339)"`
	After  int64     `query:"after" minimum:"0" doc:"those behind the one with this seq"`
	Limit  int       `query:"limit" minimum:"0" maximum:"1000" doc:"how many at most; the header Link leads to the next page. Without it, all"`
	Follow bool      `query:"follow" doc:"go on with what happens; without since and after, from now on"`
}

func (a *admin) events(ctx context.Context, in *eventsInput) (*huma.StreamResponse, error) {
	f := store.EventFilter{Name: in.Name, Since: in.Since}
	var err error
	if f.All = in.Tenant == "" && callerOf(ctx).tenant == ""; !f.All {
		if f.Tenant, err = (Scope{in.Tenant}).of(ctx, a); err != nil {
			return nil, err
		}
	}
	if name, err := policygen.ParseName(in.Name); err == nil {
		f.Name = string(name)
	}
	if f.Kinds, err = kinds(in.Kind); err != nil {
		return nil, err
	}
	if err := a.known(ctx, in.After); err != nil {
		return nil, err
	}
	if !in.Follow {
		return a.stream(func(w http.ResponseWriter, r *http.Request) error { return a.listEvents(w, r, f, in.After, in.Limit) }), nil
	}
	who := callerOf(ctx)
	leave, err := a.shares.followers.enter(who.tenant)
	if err != nil {
		return nil, err
	}
	who.leave()
	return a.stream(func(w http.ResponseWriter, r *http.Request) error {
		defer leave()
		return a.follow(w, r, f, in.After)
	}), nil
}

// known refuses a number that this store never gave. Who waits behind it would hear nothing, whatever happens.
func (a *admin) known(ctx context.Context, after int64) error {
	if after == 0 {
		return nil
	}
	last, err := a.audit.LastChange(ctx)
	if err != nil || after <= last {
		return err
	}
	return &Problem{Status: http.StatusGone, Detail: fmt.Sprintf("query.after=%d: this store has given numbers up to %d only: it was put back to "+
		"an earlier copy, or is another one; begin again without after, with since for what happened meanwhile", after, last)}
}

// kinds are those that are meant: each by its name, or all of a group by that of the group.
func kinds(asked []string) (all []string, err error) {
	for _, kind := range asked {
		n := len(all)
		for _, k := range store.Kinds() {
			if group, _, _ := strings.Cut(k, "."); k == kind || group == kind {
				all = append(all, k)
			}
		}
		if len(all) == n {
			return nil, &Problem{Status: http.StatusBadRequest, Detail: fmt.Sprintf("query.kind=%q: there is no such kind; there are %s",
				kind, strings.Join(store.Kinds(), ", "))}
		}
	}
	return slices.Compact(all), nil
}

// listEvents answers with a page, or with everything.
func (a *admin) listEvents(w http.ResponseWriter, r *http.Request, f store.EventFilter, after int64, limit int) error {
	var page []store.Event
	if limit > 0 {
		var err error
		if page, err = a.audit.Events(r.Context(), f, after, limit+1); err != nil {
			return err
		}
		if len(page) > limit {
			page = page[:limit]
			q := r.URL.Query()
			q.Set("after", strconv.FormatInt(page[limit-1].Seq, 10))
			w.Header().Set("Link", "<"+r.URL.Path+"?"+q.Encode()+`>; rel="next"`) // RFC 8288
		}
	}
	return a.writeList(w, r, func(ctx context.Context, add func(any) error) error {
		if limit == 0 {
			_, err := a.eachPage(ctx, f, after, func(page []store.Event) error { return addAll(page, add) })
			return err
		}
		return addAll(page, add)
	})
}

func addAll(page []store.Event, add func(any) error) error {
	for _, e := range page {
		if err := add(e); err != nil {
			return err
		}
	}
	return nil
}

// eachPage calls add for all events behind a number, some at a time, and returns the last one's.
func (a *admin) eachPage(ctx context.Context, f store.EventFilter, after int64, add func([]store.Event) error) (int64, error) {
	for {
		page, err := a.audit.Events(ctx, f, after, pageSize)
		if err != nil {
			return after, err
		}
		if len(page) > 0 {
			if err := add(page); err != nil {
				return after, err
			}
			after = page[len(page)-1].Seq
		}
		if len(page) < pageSize {
			return after, nil
		}
	}
}

// follow answers with events as they happen.
func (a *admin) follow(w http.ResponseWriter, r *http.Request, f store.EventFilter, after int64) error {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	go func() { // ends with the answer
		select {
		case <-a.stopping:
			cancel()
		case <-ctx.Done():
		}
	}()
	if after == 0 && f.Since.IsZero() {
		var err error
		if after, err = a.audit.LastChange(ctx); err != nil {
			return err
		}
	}
	t := &tail{a: a, w: w, rc: http.NewResponseController(w), f: f, after: after}
	// Where there are no deadlines, the server's own limits hold, here and below.
	_ = t.rc.SetReadDeadline(time.Time{}) // nothing more is to come, which is no sign of anything
	w.Header().Set("Content-Type", linesType)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set(afterHeader, strconv.FormatInt(after, 10))
	w.WriteHeader(http.StatusOK)
	err := t.flush()
	for err == nil {
		err = t.step(ctx)
	}
	select {
	case <-a.stopping: // the answer ends as it should
		return nil
	default:
	}
	if problem, ok := errors.AsType[*Problem](err); ok { // he asks again, and is told
		a.log.Info("ended a follower of events", "err", problem)
		return nil
	}
	if r.Context().Err() == nil {
		a.log.Warn("cut off a follower of events", "err", err)
	}
	panic(http.ErrAbortHandler)
}

// tail is an answer that follows.
type tail struct {
	a     *admin
	w     http.ResponseWriter
	rc    *http.ResponseController
	f     store.EventFilter
	after int64
	sent  time.Time // the last that he was sent
}

// step writes what there is, and waits until there may be more.
func (t *tail) step(ctx context.Context) error {
	last, err := t.a.audit.LastChange(ctx) // before the look: what comes meanwhile is behind it
	if err != nil {
		return err
	}
	e := json.NewEncoder(t.w)
	before := t.after
	seen, err := t.a.eachPage(ctx, t.f, t.after, func(page []store.Event) error {
		// After they were read: what he is shown happened while he was let in, and of his tenant, not of the next of its name.
		if err := t.a.stillIn(ctx, callerOf(ctx)); err != nil {
			return err
		}
		for _, v := range page {
			_ = t.rc.SetWriteDeadline(time.Now().Add(bulkPatience))
			if err := e.Encode(v); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil && seen > before {
		err = t.flush()
	}
	if err != nil {
		return err
	}
	t.after, t.f.Since = max(seen, last), time.Time{}
	pause := time.NewTimer(followEvery)
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	wait, cancel := context.WithDeadline(ctx, t.sent.Add(followBeat)) // however much happens that is not for him
	defer cancel()
	switch err := t.a.audit.Wait(wait, t.after); {
	case ctx.Err() != nil:
		return ctx.Err()
	case wait.Err() == nil:
		return err
	}
	if err := t.a.stillIn(ctx, callerOf(ctx)); err != nil {
		return err
	}
	if _, err := t.w.Write([]byte{'\n'}); err != nil {
		return err
	}
	return t.flush()
}

func (t *tail) flush() error {
	t.sent = time.Now()
	_ = t.rc.SetWriteDeadline(time.Now().Add(bulkPatience))
	return t.rc.Flush()
}
