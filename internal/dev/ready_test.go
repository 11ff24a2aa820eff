package dev

import (
	"testing"
	"time"

	"github.com/stspub/stspub/internal/publish"
)

func TestRests(t *testing.T) {
	begun := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	soon, later := begun.Add(time.Second), begun.Add(firstLook+time.Second)
	for _, tt := range []struct {
		name   string
		status publish.Status
		now    time.Time
		want   bool
	}{
		{"live", publish.Status{Step: publish.StepLive, Checked: soon}, soon, true},
		{"live in an earlier run", publish.Status{Step: publish.StepLive, Checked: begun.Add(-time.Hour)}, later, false},
		{"on its way", publish.Status{Step: publish.StepSettle}, later, false},
		{"held", publish.Status{Step: publish.StepMX, Fault: true}, later, true},
		{"foreign record", publish.Status{Step: publish.StepAdopt, Fault: true}, later, true},
		{"not looked at in this run", publish.Status{Step: publish.StepMX, Fault: true}, soon, false},
		{"draining", publish.Status{Step: publish.StepDrain, Draining: true}, later, true},
		{"customer is asked", publish.Status{Step: publish.StepDelegation, Fault: true}, later, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := rests(tt.status, begun, tt.now); got != tt.want {
				t.Errorf("rests: %v, want %v", got, tt.want)
			}
		})
	}
}
