package httpd

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stspub/stspub/internal/lab/labtest"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

// bulkWorld has an MX set "eu" of the API.
func bulkWorld(t testing.TB, addr string) (*adminWorld, *realManager) {
	t.Helper()
	w, m := runAPI(t, addr)
	w.putEU(t)
	return w, m
}

// putEU declares that.
func (w *adminWorld) putEU(t testing.TB) {
	t.Helper()
	if _, err := w.PutMXSet(t.Context(), "eu", MXSetSpec{Mode: "enforce", MaxAge: 604800, MX: []string{"mx1.example.net"}}); err != nil {
		t.Fatal(err)
	}
}

// added is a line that adds the i-th domain.
func added(i int) ChangeLine {
	return ChangeLine{Name: fmt.Sprintf("d%06d.example", i), DomainSpec: DomainSpec{MXSet: "eu", Publish: store.PublishAlias}}
}

func removed(i int) ChangeLine { return ChangeLine{Name: added(i).Name, Remove: true} }

// bulked makes n changes, and counts what became of them. They come in order.
func (w *adminWorld) bulked(t testing.TB, o BulkOptions, n int, line func(int) ChangeLine) (map[string]int, error) {
	t.Helper()
	counts := make(map[string]int)
	i := 0
	err := w.Bulk(t.Context(), o, n, line, func(r DomainResult) error {
		if r.Name != line(i).Name {
			t.Errorf("result %d is of %s, want %s", i, r.Name, line(i).Name)
		}
		i++
		if r.Error != "" {
			counts[fmt.Sprintf("%d %s", r.Status, strings.TrimPrefix(r.Error, r.Name+": "))]++
		} else {
			counts[r.Result]++
		}
		return nil
	})
	if err == nil && i != n {
		t.Errorf("%d results of %d lines", i, n)
	}
	return counts, err
}

func TestBulk(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{unixAddr(t), "127.0.0.1:0"} {
		w, m := bulkWorld(t, addr)
		const n = 1200 // two batches at least
		for _, tt := range []struct {
			o    BulkOptions
			line func(int) ChangeLine
			want map[string]int
		}{
			{BulkOptions{DryRun: true}, added, map[string]int{"added": n}},
			{BulkOptions{RequestID: "first"}, added, map[string]int{"added": n}},
			{BulkOptions{RequestID: "first"}, added, map[string]int{"added": n}}, // as it was
			{BulkOptions{RequestID: "second"}, added, map[string]int{"unchanged": n}},
			{BulkOptions{}, func(i int) ChangeLine {
				l := added(i)
				l.Publish = []string{"manual", "alias", "zone", "nowhere"}[i%4]
				return l
			}, map[string]int{
				"changed": n / 4, "unchanged": n / 4,
				`400 account: "" is no account of the tenant; publish = "zone" needs the one that holds the zone`: n / 4,
				`400 publish: "nowhere" is no way to publish; write "zone", "alias", "shared" or "manual"`:        n / 4,
			}},
			{BulkOptions{DryRun: true, Confirm: true}, removed, map[string]int{"removed": n}},
			{BulkOptions{Confirm: true}, removed, map[string]int{"removed": n}},
			{BulkOptions{}, removed, map[string]int{"unchanged": n}},
		} {
			got, err := w.bulked(t, tt.o, n, tt.line)
			if diff := cmp.Diff(tt.want, got); diff != "" || err != nil {
				t.Errorf("bulk at %s with %+v: %v (-want +got):\n%s", addr, tt.o, err, diff)
			}
		}
		count, err := m.store.CountDomains(t.Context(), "default", store.OwnerAPI)
		if err != nil || count != 0 {
			t.Errorf("%d domains are left, %v, want all to drain", count, err)
		}
		if log := w.log.String(); strings.Count(log, "request_id=first") != 2 {
			t.Errorf("the log has\n%s\nwant both requests", log)
		}
	}
}

// Removals that look like a mistake are refused one by one, and what else is asked for is done.
func TestBulkMassRemoval(t *testing.T) {
	t.Parallel()
	w, m := bulkWorld(t, unixAddr(t))
	if _, err := w.bulked(t, BulkOptions{}, 100, added); err != nil {
		t.Fatal(err)
	}
	got, err := w.bulked(t, BulkOptions{}, 40, func(i int) ChangeLine {
		if i%2 == 0 {
			return removed(i)
		}
		return added(1000 + i)
	})
	refused := 0
	for what, n := range got {
		if strings.Contains(what, "409 refused: ") && strings.Contains(what, "looks like a mistake") {
			refused += n
		}
	}
	// As many lines as come together are judged together, so up to ten removals may have been done before.
	if err != nil || got["added"] != 20 || refused < 10 || refused+got["removed"] != 20 {
		t.Errorf("results: %v, %v, want 20 added, and at least 10 of 20 removals refused", got, err)
	}
	if n, err := m.store.CountDomains(t.Context(), "default", store.OwnerAPI); err != nil || n != 120-got["removed"] {
		t.Errorf("%d domains are there, %v, want %d", n, err, 120-got["removed"])
	}
}

// A client that reads nothing before it has sent everything gets all the same.
func TestBulkOfAPatientClient(t *testing.T) {
	t.Parallel()
	w := runAdmin(t, "127.0.0.1:0", false)
	conn, err := net.Dial("tcp", w.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if tcp, ok := conn.(*net.TCPConn); !ok || tcp.SetReadBuffer(128<<10) != nil {
		t.Fatal("the read buffer is not set")
	}
	const n = 60_000 // their results are more than all buffers on the way hold
	var body strings.Builder
	for i := range n {
		fmt.Fprintf(&body, "{\"name\":%q,\"remove\":true}\n", added(i).Name)
	}
	if err := conn.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	_, err = fmt.Fprintf(conn, "POST /v1/domains:bulk HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nContent-Length: %d\r\n\r\n%s", body.Len(), body.String())
	if err != nil {
		t.Fatalf("send everything: %v", err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	got := newReply(t, resp)
	if lines := strings.Count(got.body, `"status":404}`+"\n"); lines != n || got.header.Get("Content-Type") != linesType {
		t.Errorf("%d lines say that there is no such domain, want %d", lines, n)
	}
}

// A connection that breaks in the middle costs a repeat of what was not answered, and nothing twice.
func TestBulkGoesOn(t *testing.T) {
	t.Parallel()
	w, m := bulkWorld(t, "127.0.0.1:0")
	target, err := url.Parse("http://" + w.addr)
	if err != nil {
		t.Fatal(err)
	}
	var requests atomic.Int32
	proxy := &httputil.ReverseProxy{FlushInterval: -1, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Host = "localhost"
	}, ModifyResponse: func(resp *http.Response) error {
		if requests.Add(1) <= 2 { // cut while it works
			resp.Body = struct {
				io.Reader
				io.Closer
			}{io.MultiReader(io.LimitReader(resp.Body, 20_000), failing{}), resp.Body}
		}
		return nil
	}}
	front := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(rw).EnableFullDuplex() // it is HTTP/1
		proxy.ServeHTTP(rw, r)
	}))
	defer front.Close()
	front.Config.ErrorLog = nil
	c := NewClient(strings.TrimPrefix(front.URL, "http://"))
	counts := make(map[string]int)
	var names []string
	err = c.Bulk(t.Context(), BulkOptions{RequestID: "one"}, 3000, added, func(r DomainResult) error {
		counts[r.Result]++
		names = append(names, r.Name)
		return nil
	})
	if err != nil || counts["added"] != 3000 || requests.Load() != 3 {
		t.Errorf("Bulk over a connection that breaks twice: %v, %v in %d requests", counts, err, requests.Load())
	}
	if !slices.IsSorted(names) || len(slices.Compact(names)) != 3000 {
		t.Error("results came twice, or out of order")
	}
	if n, err := m.store.CountDomains(t.Context(), "default", store.OwnerAPI); err != nil || n != 3000 {
		t.Errorf("%d domains are there, %v, want 3000", n, err)
	}
}

// failing is a connection that is cut.
type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("cut") }

func TestBulkStops(t *testing.T) {
	t.Parallel()
	w, _ := bulkWorld(t, unixAddr(t))
	enough := errors.New("enough")
	if err := w.Bulk(t.Context(), BulkOptions{}, 5000, added, func(DomainResult) error { return enough }); err != enough {
		t.Errorf("Bulk = %v, want the error of the function", err)
	}
	err := w.As("", "nobody").Bulk(t.Context(), BulkOptions{}, 5000, added, nil)
	if want := `change domains: line 1: there is no tenant "nobody"`; err == nil || err.Error() != want {
		t.Errorf("Bulk for a tenant that is not there = %v, want %s", err, want)
	}
	gone := NewClient("unix:/nonexistent/admin.sock")
	began := time.Now()
	if err := gone.Bulk(t.Context(), BulkOptions{}, 1, added, nil); err == nil || !strings.Contains(err.Error(), "no such socket") || time.Since(began) > 5*time.Second {
		t.Errorf("Bulk without a server = %v after %v", err, time.Since(began))
	}
}

// What is no line has an answer of its own; a line that never ends has none.
func TestBulkLines(t *testing.T) {
	t.Parallel()
	w, _ := bulkWorld(t, unixAddr(t))
	good := `{"name":"good.example","mxset":"eu","publish":"alias"}`
	lines := []string{good, "", "nonsense", "[]", `{"name":"x.example","color":"red"}`, good + good, `{"name":1}`, `{"name":"no name","mxset":"eu","publish":"alias"}`, "{}", good}
	body := strings.Join(lines, "\n")
	resp, err := w.bulkRequest(t.Context(), "/v1/domains:bulk", "", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	got := newReply(t, resp)
	var results []string
	for line := range strings.Lines(got.body) {
		var r DomainResult
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		results = append(results, fmt.Sprintf("%s|%s|%d", r.Name, r.Result, r.Status))
	}
	want := []string{
		"good.example|added|0", "||400", "||400", "x.example||400", "good.example||400", "||400", "no name||400", "||400",
		"good.example|unchanged|0",
	}
	if diff := cmp.Diff(want, results); diff != "" {
		t.Errorf("results (-want +got):\n%s\n%s", diff, got.body)
	}
	counts, err := w.bulked(t, BulkOptions{}, 3, func(i int) ChangeLine {
		l := added(i)
		if i == 1 {
			l = ChangeLine{IfMatch: strings.Repeat("x", 3*maxLine)}
		}
		return l
	})
	if diff := cmp.Diff(map[string]int{"added": 2, "400 the line is longer than 65536 bytes": 1}, counts); diff != "" || err != nil {
		t.Errorf("a line that is too long: %v (-want +got):\n%s", err, diff)
	}
}

func FuzzBulkLine(f *testing.F) {
	for _, seed := range []string{
		`{"name":"a.example","mxset":"eu","publish":"alias"}`, `{"name":"a.example","remove":true,"if_match":"*"}`,
		`{"name":"a.example","mxset":"eu","publish":"zone","account":"main","adopt":true,"tlsrpt":["mailto:a@example.org"]}`,
		`{}`, `[]`, `null`, `{"name":"a"}{"name":"b"}`, "{\"name\":\"\xff\"}", `{"NAME":"a"}`, `{"name":"a","name":"b"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := parseLine(text)
		if err != nil {
			if problem, ok := errors.AsType[*Problem](err); !ok || problem.Status != http.StatusBadRequest {
				t.Errorf("%q: %v, want a problem of the request", text, err)
			}
			return
		}
		// What was read says the same when it is written again.
		again, err := json.Marshal(ChangeLine{
			Name: c.Name, DomainSpec: DomainSpec{MXSet: c.MXSet, Publish: c.Publish, Account: c.Account, Adopt: c.Adopt, TLSRPT: c.TLSRPT},
			Remove: c.Remove, IfMatch: c.IfMatch,
		})
		if err != nil {
			t.Fatal(err)
		}
		other, err := parseLine(again)
		if len(c.TLSRPT) == 0 {
			c.TLSRPT = nil
		}
		if diff := cmp.Diff(c, other); diff != "" || err != nil {
			t.Errorf("%q, written again as %q: %v\n%s", text, again, err, diff)
		}
		if name, err := policygen.ParseName(c.Name); err == nil && name == "" {
			t.Errorf("%q has an empty name", text)
		}
	})
}

// BenchmarkBulk adds 100,000 domains in one request, on SQLite and on a real PostgreSQL.
func BenchmarkBulk(b *testing.B) {
	b.Run("sqlite", func(b *testing.B) {
		w, _ := bulkWorld(b, unixAddr(b))
		w.benchmark(b)
	})
	b.Run("postgres", func(b *testing.B) {
		st, err := store.OpenPostgres(b.Context(), labtest.StartPostgreSQL(b).Database(b), nil)
		if err != nil {
			b.Fatal(err)
		}
		w, _ := runAPIOn(b, unixAddr(b), st)
		w.putEU(b)
		w.benchmark(b)
	})
}

// benchmark adds, adds again and removes 100,000 domains.
func (w *adminWorld) benchmark(b *testing.B) {
	b.Helper()
	const n = 100_000
	for range b.N {
		for _, o := range []struct {
			what string
			line func(int) ChangeLine
		}{{"added", added}, {"unchanged", added}, {"removed", removed}} {
			began := time.Now()
			got, err := w.bulked(b, BulkOptions{Confirm: true}, n, o.line)
			if err != nil || got[o.what] != n && b.N == 1 {
				b.Fatalf("%v, %v", got, err)
			}
			b.ReportMetric(time.Since(began).Seconds(), o.what+"-s")
		}
	}
}
