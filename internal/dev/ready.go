package dev

import (
	"context"
	"time"

	"github.com/stspub/stspub/internal/httpd"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
)

const (
	lookEvery = 300 * time.Millisecond
	// firstLook is how long the daemon is given to look at every domain. Until then a fault may be an earlier run's.
	firstLook = 5 * time.Second
)

// watch says ready when every domain rests. It asks the daemon, since a domain that is held as in an earlier run has no
// step to tell. A pass tells its end after it is stored, so what it ends with must be seen twice.
func (d *dev) watch(ctx context.Context, client *httpd.Client) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for seen := 0; ; {
		live, all := d.look(ctx, client)
		if seen++; !all {
			seen = 0
		}
		if seen == 2 {
			d.sayReady(live)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// look returns the live domains of the configuration file, and whether all rest.
func (d *dev) look(ctx context.Context, client *httpd.Client) (live []policygen.Name, all bool) {
	resting, pending := 0, []policygen.Name(nil)
	d.mu.Lock()
	wanted := d.wanted // replaced as a whole, never changed
	d.mu.Unlock()
	err := client.Domains(ctx, false, func(s publish.Status) error {
		if _, ours := wanted[s.Name]; !ours {
			return nil
		}
		if s.Step == publish.StepLive {
			live = append(live, s.Name)
		}
		if rests(s, d.begun, time.Now()) {
			resting++
		} else if s.Step == publish.StepDelegation {
			pending = append(pending, s.Name)
		}
		return nil
	})
	if err != nil {
		d.o.Log.Debug("domains not listed", "err", err)
		return nil, false
	}
	for _, name := range pending {
		d.beCustomer(name) // the step is not told where an earlier run ended at it
	}
	return live, resting == len(wanted)
}

// rests says whether nothing happens to a domain any more unless somebody acts: it is live, held, at fault or leaving.
func rests(s publish.Status, begun, now time.Time) bool {
	switch s.Step {
	case publish.StepLive:
		return s.Checked.After(begun)
	case publish.StepDelegation:
		return false // the customer acts
	}
	return (s.Fault || s.Draining) && now.Sub(begun) > firstLook
}
