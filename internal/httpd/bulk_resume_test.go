package httpd

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stspub/stspub/internal/lab/labtest"
	"github.com/stspub/stspub/internal/store"
)

// twoNodes are the APIs of two nodes on one PostgreSQL, with an MX set "eu".
func twoNodes(t *testing.T) (one, two *adminWorld) {
	t.Helper()
	url := labtest.StartPostgreSQL(t).Database(t)
	var nodes []*adminWorld
	for range 2 {
		st, err := store.OpenPostgres(t.Context(), url, nil)
		if err != nil {
			t.Fatal(err)
		}
		w, _ := runAPIOn(t, "127.0.0.1:0", st)
		if nodes = append(nodes, w); len(nodes) == 1 {
			w.putEU(t)
		}
	}
	return nodes[0], nodes[1]
}

// answers sends n lines as request id, and returns all answers.
func (w *adminWorld) answers(t *testing.T, o BulkOptions, n int, line func(int) ChangeLine) (all []DomainResult) {
	t.Helper()
	if err := w.Bulk(t.Context(), o, n, line, func(r DomainResult) error {
		all = append(all, r)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

// tally counts answers by what became of the line.
func tally(all []DomainResult) map[string]int {
	counts := make(map[string]int)
	for _, r := range all {
		if r.Error != "" {
			r.Result = fmt.Sprint(r.Status)
		}
		counts[r.Result]++
	}
	return counts
}

// cutAfter sends the first lines of many as request id, reads as many answers, and cuts the connection.
func (w *adminWorld) cutAfter(t *testing.T, id string, n int, line func(int) ChangeLine) (all []DomainResult) {
	t.Helper()
	conn, err := net.Dial("tcp", w.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	var body strings.Builder
	if err := writeChanges(&body, n, line); err != nil {
		t.Fatal(err)
	}
	_, err = fmt.Fprintf(conn, "POST /v1/domains:bulk HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n"+
		"Request-Id: %s\r\nContent-Length: 100000000\r\n\r\n%s{\"name\": \"half a li", id, body.String())
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for dec := json.NewDecoder(resp.Body); len(all) < n; {
		var r DomainResult
		if err := dec.Decode(&r); err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

// A request that was cut off in the middle goes on at another node: what was done is answered as it was.
func TestBulkResumes(t *testing.T) {
	t.Parallel()
	one, two := twoNodes(t)
	before := one.answers(t, BulkOptions{}, 3, added)
	line := func(i int) ChangeLine {
		l := added(i)
		if i < 3 {
			l.IfMatch = before[i].ETag
		}
		if l.Remove = i == 1 || i == 2; i == 0 {
			l.Publish = store.PublishManual
		}
		if i == 3 {
			l.Publish = "nowhere"
		}
		return l
	}
	const n = 3000
	want := map[string]int{"changed": 1, "removed": 2, "400": 1, "added": n - 4}
	part := one.cutAfter(t, "panel-1", 1500, line)
	o := BulkOptions{RequestID: "panel-1"}
	whole := two.answers(t, o, n, line)
	if diff := cmp.Diff(want, tally(whole)); diff != "" {
		t.Errorf("sent again at another node (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(part, whole[:len(part)]); diff != "" {
		t.Errorf("what was done is not answered as it was (-then +now):\n%s", diff)
	}
	if diff := cmp.Diff(whole, one.answers(t, o, n, line)); diff != "" {
		t.Errorf("sent again when all was done (-then +now):\n%s", diff)
	}
	// What is not a part of it is another request.
	other := two.answers(t, o, n+1, func(i int) ChangeLine {
		if i == 2000 {
			return added(5000)
		}
		return line(i)
	})
	if diff := cmp.Diff(map[string]int{"changed": 1, "removed": 2, "400": 1, "added": 1996, "422": n + 1 - 2000}, tally(other)); diff != "" {
		t.Errorf("other lines under the same id (-want +got):\n%s", diff)
	}
	if got := tally(one.answers(t, BulkOptions{RequestID: "panel-1", Confirm: true}, 5, line)); got["422"] != 5 {
		t.Errorf("other options under the same id: %v", got)
	}
	if got := tally(one.answers(t, BulkOptions{RequestID: "panel-1", DryRun: true}, 5, line)); got["422"] != 0 || got["412"] != 3 {
		t.Errorf("a dry run under the same id: %v, want what would become of it now", got)
	}
	if _, err := one.Domain(t.Context(), added(5000).Name); err == nil {
		t.Error("a line that was refused was done")
	}
}

// The count of removals goes on when a request is sent again, and is not begun anew by sending a piece of it.
func TestBulkResumesMassRemoval(t *testing.T) {
	t.Parallel()
	one, two := twoNodes(t)
	one.answers(t, BulkOptions{}, 100, added)
	one.cutAfter(t, "gone", 10, removed)
	o := BulkOptions{RequestID: "gone"}
	for range 2 { // answered as it was again
		if got := tally(two.answers(t, o, 20, removed)); got["removed"] != 10 || got["409"] != 10 {
			t.Errorf("20 removals, of which 10 were done: %v, want the others refused", got)
		}
	}
	if got := tally(two.answers(t, o, 10, func(i int) ChangeLine { return removed(i + 10) })); got["422"] != 10 {
		t.Errorf("the second half alone: %v", got)
	}
}
