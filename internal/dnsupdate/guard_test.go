package dnsupdate_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/dnsupdate"
)

// roundTrip is a transport without a network, so that time can be made to pass.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func answer(status int, body string, header http.Header) *http.Response {
	return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader(body))}
}

// empty is an API whose only zone is empty and stays so; what needs no write succeeds there.
func empty(r *http.Request) *http.Response {
	if strings.HasSuffix(r.URL.Path, "/zones") {
		return answer(200, `{"success":true,"result":[{"id":"z1","name":"example.org","status":"active"}]}`, nil)
	}
	return answer(200, `{"success":true,"result":[],"result_info":{"total_pages":0}}`, nil)
}

func timeless(t *testing.T, f roundTrip) dnsupdate.Account {
	t.Helper()
	a, err := dnsupdate.Open(config.Account{Name: "main", Provider: "cloudflare", APIToken: "token"}, dnsupdate.Options{HTTP: f})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestPause has the API ask for a pause: the account asks nothing for anybody until it is over.
func TestPause(t *testing.T) {
	t.Parallel()
	for _, retry := range []string{"seconds", "date"} {
		synctest.Test(t, func(t *testing.T) {
			requests, refuse := 0, true
			a := timeless(t, func(r *http.Request) (*http.Response, error) {
				requests++
				if !refuse {
					return empty(r), nil
				}
				header := http.Header{"Retry-After": {"90"}}
				if retry == "date" {
					header.Set("Retry-After", time.Now().Add(90*time.Second).UTC().Format(http.TimeFormat))
				}
				return answer(429, "", header), nil
			})
			c := change(record, "", sts("old"))
			p := &place{}
			if e := p.fails(t, a.Apply(t.Context(), c), dnsupdate.KindRateLimited); e.RetryAfter != 90*time.Second {
				t.Errorf("RetryAfter = %v, want 1m30s", e.RetryAfter)
			}
			refuse = false
			time.Sleep(30 * time.Second)
			c.Name = "_mta-sts.other." + zone
			err := a.Apply(t.Context(), c)
			if e := p.fails(t, err, dnsupdate.KindRateLimited); e.RetryAfter != time.Minute || requests != 1 {
				t.Errorf("RetryAfter = %v after %d requests, want 1m0s after 1", e.RetryAfter, requests)
			}
			says(t, err, `read TXT "_mta-sts.other.example.org" in zone "example.org" by account "main" (cloudflare):`+
				` the provider asked to wait; asking again in 1m0s`)
			time.Sleep(time.Minute)
			apply(t, a, c)
		})
	}
}

// TestRateLimit changes without pause for an hour: no five minutes may hold more than 1200 requests.
func TestRateLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var at []time.Time
		a := timeless(t, func(r *http.Request) (*http.Response, error) {
			at = append(at, time.Now())
			return empty(r), nil
		})
		for start := time.Now(); time.Since(start) < time.Hour; {
			apply(t, a, change(record, "", sts("old")))
		}
		if len(at) < 10_000 {
			t.Errorf("%d requests in an hour: the allowance is not used", len(at))
		}
		for i := range len(at) - 1200 {
			if at[i+1200].Sub(at[i]) < 5*time.Minute {
				t.Fatalf("1201 requests in %v", at[i+1200].Sub(at[i]))
			}
		}
	})
}

// TestCrowd has more changes at once than fit into a deadline: the rest is told when to come back.
func TestCrowd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := timeless(t, func(r *http.Request) (*http.Response, error) { return empty(r), nil })
		start := time.Now()
		errs := make([]error, 400)
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() {
				errs[i] = a.Apply(t.Context(), change(fmt.Sprintf("_mta-sts.n%d.example.org", i), "", sts("old")))
			})
		}
		wg.Wait()
		if took := time.Since(start); took > 30*time.Second {
			t.Errorf("Apply took %v, want at most 30s", took)
		}
		done := 0
		for _, err := range errs {
			if err == nil {
				done++
				continue
			}
			if e := (&place{}).fails(t, err, dnsupdate.KindRateLimited); e.RetryAfter <= 0 || e.RetryAfter > 5*time.Minute {
				t.Errorf("RetryAfter = %v", e.RetryAfter)
			}
		}
		if done < 50 || done == len(errs) {
			t.Errorf("%d of %d changes were made", done, len(errs))
		}
	})
}

// TestDeadline has an API that never answers.
func TestDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var asked []time.Time
		a := timeless(t, func(r *http.Request) (*http.Response, error) {
			asked = append(asked, time.Now())
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		start := time.Now()
		err := a.Apply(t.Context(), change(record, sts("now")))
		(&place{}).fails(t, err, dnsupdate.KindUnavailable)
		if took := time.Since(start); took > 30*time.Second || len(asked) != 1 {
			t.Errorf("Apply took %v and %d requests", took, len(asked))
		}
		// One change waits for another of the same name, and gives up when its caller does.
		go a.Apply(t.Context(), change(record, sts("now")))
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err = a.Apply(ctx, change(record, sts("now")))
		if e := (&place{}).fails(t, err, dnsupdate.KindUnavailable); !errors.Is(e, context.DeadlineExceeded) || len(asked) != 2 {
			t.Errorf("Apply = %v after %d requests", err, len(asked))
		}
		time.Sleep(time.Minute)
	})
}

// TestPanic has the transport panic, as libraries do on answers they did not expect.
func TestPanic(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	broken := true
	a, err := dnsupdate.Open(config.Account{Name: "main", Provider: "cloudflare", APIToken: "token"}, dnsupdate.Options{
		HTTP: roundTrip(func(r *http.Request) (*http.Response, error) {
			if broken {
				panic("no such page")
			}
			return empty(r), nil
		}),
		Log: slog.New(slog.NewTextHandler(&log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	err = a.Apply(t.Context(), change(record, "", sts("old")))
	says(t, (&place{}).fails(t, err, dnsupdate.KindInternal), "write "+prefixCF+"panic: no such page")
	if !strings.Contains(log.String(), "guard_test.go") {
		t.Errorf("the log has no stack: %s", log.String())
	}
	broken = false
	apply(t, a, change(record, "", sts("old"))) // the name is not locked for ever
}

// TestMalformed has an API that answers with anything.
func TestMalformed(t *testing.T) {
	t.Parallel()
	bodies := []string{
		"", "null", "[]", "{}", `"`, "true", `{"success":true}`, `{"success":true,"result":null}`, `{"success":true,"result":{}}`,
		`{"success":true,"result":[{"id":1}]}`, `{"success":true,"result":[null]}`, `{"success":true,"errors":[{}],"result":[]}`,
		`{"success":true,"result":[],"result_info":null}`, `{"success":true,"result":[],"result_info":{"total_pages":1000000}}`,
		strings.Repeat("x", 2<<20),
	}
	for _, body := range bodies {
		for _, at := range []string{"/zones", "/dns_records", "POST"} {
			synctest.Test(t, func(t *testing.T) { // the rate limit would hold up the one with a million pages
				writes := 0
				a := timeless(t, func(r *http.Request) (*http.Response, error) {
					if r.Method != http.MethodGet {
						writes++
					}
					if r.Method == at || strings.HasSuffix(r.URL.Path, at) && r.Method == http.MethodGet {
						return answer(200, body, nil), nil
					}
					return empty(r), nil
				})
				err := a.Apply(t.Context(), change(record, sts("now")))
				e, ok := errors.AsType[*dnsupdate.Error](err)
				if !ok || slices.Contains([]dnsupdate.Kind{dnsupdate.KindInternal, dnsupdate.KindConflict}, e.Kind) {
					t.Errorf("%s %.40s: %v", at, body, err)
				}
				if unread := at == "/dns_records" && !strings.Contains(body, "[]"); unread && writes > 0 {
					t.Errorf("%s %.40s: wrote without knowing what is there", at, body)
				}
			})
		}
	}
}
