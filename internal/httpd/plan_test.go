package httpd

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/stspub/stspub/internal/publish"
)

// plan asks for a plan, and returns what was told of its progress as well.
func (w *adminWorld) plan(t *testing.T, path string, files map[string][]byte) (publish.Plan, []string, error) {
	t.Helper()
	var told []string
	p, err := w.Plan(t.Context(), path, files, func(done, total int) { told = append(told, fmt.Sprintf("%d/%d", done, total)) })
	return p, told, err
}

func TestPlan(t *testing.T) {
	t.Parallel()
	w := runAdmin(t, unixAddr(t), false)
	for _, files := range []map[string][]byte{nil, {"/etc/new.toml": []byte("[server]\n"), "/etc/list.txt": {0xff, 0}}} {
		w.manager.with(func(m *fakeManager) { m.looks = 3 })
		path := ""
		if files != nil {
			path = "/etc/new.toml"
		}
		p, told, err := w.plan(t, path, files)
		if diff := cmp.Diff(newFakeManager().planned, p, cmpopts.IgnoreUnexported(publish.Plan{})); diff != "" || err != nil {
			t.Errorf("Plan: %v, -want +got\n%s", err, diff)
		}
		if !slices.Equal(told, []string{"1/3", "2/3", "3/3"}) {
			t.Errorf("told of progress: %q", told)
		}
		w.manager.with(func(m *fakeManager) {
			if diff := cmp.Diff(PlanRequest{path, files}, m.asked); diff != "" {
				t.Errorf("the server was asked, -want +got\n%s", diff)
			}
		})
	}
}

// An error is the same before and after the first word of progress, and nobody takes half an answer for a plan.
func TestPlanErrors(t *testing.T) {
	t.Parallel()
	w := runAdmin(t, unixAddr(t), false)
	for _, looks := range []int{0, 2} {
		w.manager.with(func(m *fakeManager) {
			m.looks, m.doErr = looks, fmt.Errorf("%w: new.toml:3: mxset.eu.mode: is missing", publish.ErrRefused)
		})
		_, told, err := w.plan(t, "", nil)
		if want := "plan: refused: new.toml:3: mxset.eu.mode: is missing"; err == nil || err.Error() != want || len(told) != looks {
			t.Errorf("Plan after %d look-ups = %v, %q, want %s", looks, err, told, want)
		}
		if problem, ok := errors.AsType[*Problem](err); !ok || looks == 0 && problem.Status != 409 {
			t.Errorf("Plan after %d look-ups = %#v, want a problem", looks, err)
		}
		w.manager.with(func(m *fakeManager) { m.doErr = errors.New("password is hunter2") })
		if p, _, err := w.plan(t, "", nil); err == nil || p.Hash != "" {
			t.Errorf("Plan after %d look-ups = %+v, want an error", looks, p)
		}
	}
	got := w.ask(t, "POST", "POST /v1/plan HTTP/1.1\nHost: localhost\nContent-Type: application/json\nContent-Length: 1\n\n{")
	if got.status != 400 {
		t.Errorf("POST of half a request = %d %s, want 400", got.status, got.body)
	}
}
