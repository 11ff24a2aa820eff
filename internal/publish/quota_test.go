package publish_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
)

const held = "tenant acme has used up its 5 writes to DNS in a day"

// spent is a tenant without writes left, who announced a text before.
func spent(announced string) func(*look) {
	return func(l *look) {
		l.seen.Quota = &publish.Quota{Spent: true, Reason: held, After: 3 * time.Hour, Announced: announced}
		l.s.Dirty = true
	}
}

// TestNextAtTheLimit: at a tenant's limit a changed policy waits at step txt, and nothing that senders need does.
func TestNextAtTheLimit(t *testing.T) {
	enforce := right().s.Served
	testing1 := strings.Replace(enforce, "enforce", "testing", 1)
	other := strings.Replace(enforce, "mx.test", "mx0.test", 1)
	for _, c := range []struct {
		name    string
		change  func(*look)
		held    bool
		limited bool // the write may be refused
	}{
		{"a changed policy", spent(other), true, true},
		{"with writes left", func(l *look) { spent(other)(l); l.seen.Quota.Spent = false }, false, true},
		{"without a limit", func(l *look) { l.s.Dirty, l.seen.Quota = true, &publish.Quota{} }, false, true},
		{"the first publication", func(l *look) {
			spent("")(l)
			l.w.Announced, l.s.ID, l.s.Zone, l.seen.TXT = false, "", "", servers("", "")
		}, true, true},
		{"the way to enforce", spent(testing1), true, true},
		{"the way back", func(l *look) { spent(enforce)(l); l.w.Policy, l.s.Served = testing1, testing1 }, false, false},
		{"the way back, again", func(l *look) {
			spent(testing1)(l)
			l.w.Policy = strings.Replace(testing1, "86400", "86401", 1)
			l.s.Served = l.w.Policy
		}, true, true},
		{"an id that is healed", spent(enforce), false, false},
		{"a policy that drains", func(l *look) {
			spent(other)(l)
			l.w.Drain, l.w.Policy = true, strings.Replace(enforce, "enforce", "none", 1)
			l.s.Served = l.w.Policy
		}, false, false},
		{"one whose shared record answers meanwhile", func(l *look) {
			spent("")(l)
			l.w.Shared, l.s.ID, l.s.Detached = &publish.Shared{}, "", now().Add(-time.Hour)
		}, false, false},
		{"one that nobody is sent to the shared record of", func(l *look) {
			spent("")(l)
			l.w.Shared, l.w.Announced, l.s.Zone, l.s.ID, l.s.Detached = &publish.Shared{}, false, "", "", now().Add(-time.Hour)
			l.seen.Delegation = &publish.Delegation{}
		}, true, true},
		{"one whose customer was early", func(l *look) {
			spent("")(l)
			l.w.Shared, l.w.Announced, l.s.Zone, l.s.ID, l.s.Detached = &publish.Shared{}, false, "", "", now().Add(-time.Hour)
		}, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := right()
			c.change(&l)
			d := publish.Next(l.w, l.s, l.seen, now())
			if !c.held {
				if d.Do != publish.DoWrite || d.Add != "v=STSv1; id=fresh;" || d.Limited != c.limited {
					t.Errorf("Next = %+v, want a write that may be refused: %v", d, c.limited)
				}
				return
			}
			if s := d.State; !d.Wait || s.Step != publish.StepTXT || s.Reason != held || s.Fault || s.Intended != "" || d.After != 3*time.Hour {
				t.Errorf("Next = %+v, want a wait at step txt", d)
			}
		})
	}
}

// TestNextBeyondTheLimit: what is repaired without a fresh id does not even ask, nor does what the customer writes.
func TestNextBeyondTheLimit(t *testing.T) {
	for name, change := range map[string]func(*look){
		"a record that is gone":      func(l *look) { l.seen.TXT = servers("", "") },
		"a duplicate":                func(l *look) { l.seen.TXT.Servers[0].STS = append(l.seen.TXT.Servers[0].STS, "v=STSv1; id=x;") },
		"an id that was intended":    func(l *look) { l.s.Dirty, l.s.Intended = true, "id2" },
		"the end of a drain":         func(l *look) { l.w.Drain, l.s.Horizon, l.seen.TXT.Ours = true, now(), []string{"v=STSv1; id=id1;"} },
		"what the customer is asked": func(l *look) { l.w.Manual, l.s.Dirty = true, true },
	} {
		t.Run(name, func(t *testing.T) {
			l := right()
			change(&l)
			l.seen.Quota = nil
			d := publish.Next(l.w, l.s, l.seen, now())
			if d.Look != 0 || d.Limited || d.State.Reason == held || d.Do == publish.DoNothing && d.State.Intended == "" {
				t.Errorf("Next = %+v", d)
			}
		})
	}
	if p, err := policygen.ParsePolicy([]byte(right().s.Served)); err != nil || p.Mode != policygen.Enforce {
		t.Fatal("the policy of these tests is not enforced")
	}
}
