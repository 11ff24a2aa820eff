package publish

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/stspub/stspub/internal/store"
)

const (
	toldLately = 10 * time.Minute // what another node told of so lately is not told again
	untoldMost = 256              // faults that wait to be told while the store does not answer
)

// fault keeps, or with an empty reason clears, a fault of the service as a whole. That it begins, and that it is gone, are
// events; who is told them waits for the store, and the caller does not.
func (r *Reconciler) fault(subject, reason string) {
	r.mu.Lock()
	before := r.faults[subject]
	if reason == "" {
		delete(r.faults, subject)
	} else {
		r.faults[subject] = reason
	}
	if (before == "") != (reason == "") && len(r.untold) < untoldMost {
		e := store.Event{At: r.now(), Kind: store.KindServiceFault, Name: subject, Actor: store.ActorSelf, Text: oneLine(reason), After: reasonJSON(reason)}
		if reason == "" {
			e.Kind, e.Text, e.Before, e.After = store.KindServiceMended, "fault gone", reasonJSON(before), nil
		}
		r.untold = append(r.untold, e)
		select {
		case r.telling <- struct{}{}:
		default:
		}
	}
	r.mu.Unlock()
	switch {
	case before == reason:
	case reason == "":
		r.cfg.Log.Info("fault gone", "fault", subject)
	default:
		r.cfg.Log.Warn("fault", "fault", subject, "reason", reason)
	}
}

func reasonJSON(reason string) json.RawMessage {
	text, err := json.Marshal(map[string]string{"reason": brief(reason)})
	if err != nil { // a map of texts is always JSON
		return nil
	}
	return text
}

func oneLine(s string) string { return brief(strings.Join(strings.Fields(s), " ")) }

// tellFaults keeps the events of faults until ctx ends, in their order. The store may be what is at fault.
func (r *Reconciler) tellFaults(ctx context.Context) {
	pause := time.Second
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.telling:
		}
		for {
			r.mu.Lock()
			all := r.untold
			r.mu.Unlock()
			if len(all) == 0 {
				pause = time.Second
				break
			}
			if err := r.tellFault(ctx, all[0]); err == nil {
				r.mu.Lock()
				r.untold = r.untold[1:]
				r.mu.Unlock()
				continue
			}
			retry := time.NewTimer(pause)
			pause = min(2*pause, time.Minute)
			select {
			case <-ctx.Done():
				retry.Stop()
				return
			case <-retry.C:
			}
		}
	}
}

// tellFault keeps an event, unless another node, which found the same, just did.
func (r *Reconciler) tellFault(ctx context.Context, e store.Event) error {
	told, err := r.cfg.Store.Events(ctx, store.EventFilter{
		Name: e.Name, Kinds: []string{store.KindServiceFault, store.KindServiceMended}, Since: e.At.Add(-toldLately),
	}, 0, 1000)
	if err != nil {
		return err
	}
	if n := len(told); r.cfg.Node != "" && n > 0 && told[n-1].Kind == e.Kind {
		return nil
	}
	return r.cfg.Store.AppendEvents(ctx, []store.Event{e})
}
