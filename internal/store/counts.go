package store

import (
	"context"
	"encoding/json"
)

// Counts says how many domains and shared records there are.
type Counts struct {
	Steps    map[string]int // by the step of what is wanted; [StepNew] stands for none
	Draining int            // those that are not wanted any more, which are in none of Steps
	Faulty   int            // those whose State has a Fault
	Findings map[string]int // how many have one, by its code
}

// queryCounts reads nothing but indexes: rows are large.
const queryCounts = `SELECT 'all', step, count(*) FROM domains GROUP BY tenant, step
	UNION ALL SELECT 'removed', step, count(*) FROM domains WHERE removed <> 0 GROUP BY step
	UNION ALL SELECT 'faulty', '', count(*) FROM domains WHERE fault = TRUE`

// queryFindings reads the rows that have any.
const queryFindings = `SELECT findings FROM domains WHERE findings <> ''`

// Counts implements [Store].
func (t *tables) Counts(ctx context.Context) (Counts, error) {
	c := Counts{Steps: make(map[string]int), Findings: make(map[string]int)}
	err := t.db.read(ctx, "count domains", func(r row) error {
		var what, step string
		var n int
		if err := r.Scan(&what, &step, &n); err != nil {
			return err
		}
		if step == "" {
			step = StepNew
		}
		switch what {
		case "all":
			c.Steps[step] += n
		case "removed":
			c.Steps[step] -= n
			c.Draining += n
		case "faulty":
			c.Faulty = n
		}
		if c.Steps[step] == 0 {
			delete(c.Steps, step)
		}
		return nil
	}, queryCounts)
	if err != nil {
		return Counts{}, err
	}
	err = t.db.read(ctx, "count findings", func(r row) error {
		var text string
		if err := r.Scan(&text); err != nil {
			return err
		}
		var found []struct{ Code string }
		if err := json.Unmarshal([]byte(text), &found); err != nil {
			return err
		}
		for _, f := range found {
			c.Findings[f.Code]++
		}
		return nil
	}, queryFindings)
	if err != nil {
		return Counts{}, err
	}
	return c, nil
}
