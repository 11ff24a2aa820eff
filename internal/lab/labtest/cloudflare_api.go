package labtest

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// apiError is an error as the API words it, with its HTTP status.
type apiError struct {
	status  int
	Code    int         `json:"code"`
	Message string      `json:"message"`
	Chain   []*apiError `json:"error_chain,omitempty"`
}

// envelope is what every answer is wrapped in.
type envelope struct {
	Result     any         `json:"result"`
	Success    bool        `json:"success"`
	Errors     []*apiError `json:"errors"`
	Messages   []string    `json:"messages"`
	ResultInfo *resultInfo `json:"result_info,omitempty"`
}

type resultInfo struct {
	Page       int `json:"page"`
	PerPage    int `json:"per_page"`
	Count      int `json:"count"`
	TotalCount int `json:"total_count"`
	TotalPages int `json:"total_pages"`
}

// serve carries one request out, with the fault that is due.
func (c *Cloudflare) serve(w http.ResponseWriter, r *http.Request) {
	f := c.record(r)
	// That the client is gone is seen only after the body is read.
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	if f.Delay > 0 {
		select {
		case <-time.After(f.Delay):
		case <-r.Context().Done():
			return
		}
	}
	if f.Do != nil {
		f.Do()
	}
	if f.Status != 0 {
		if f.RetryAfter != "" {
			w.Header().Set("Retry-After", f.RetryAfter)
		}
		w.WriteHeader(f.Status)
		_, _ = w.Write([]byte(f.Body))
		return
	}
	if wait := c.exceeded(); wait > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int((wait+time.Second-1)/time.Second)))
		reply(w, nil, nil, &apiError{status: http.StatusTooManyRequests, Code: 10429, Message: "Rate limited. Please wait and try again later."})
		return
	}
	result, info, refused := c.handle(r)
	if f.Cut {
		panic(http.ErrAbortHandler) // cuts the connection
	}
	reply(w, result, info, refused)
}

// record notes a request and returns the fault for it.
func (c *Cloudflare) record(r *http.Request) CloudflareFault {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests = append(c.requests, r.Method+" "+strings.TrimPrefix(r.URL.RequestURI(), "/client/v4"))
	for i, f := range c.faults {
		if f.Method != "" && f.Method != r.Method || !strings.HasSuffix(r.URL.Path, f.Path) {
			continue
		}
		if f.Times--; f.Times == 0 {
			c.faults = slices.Delete(c.faults, i, i+1)
		}
		return *f
	}
	return CloudflareFault{}
}

// exceeded says for how long requests are still refused by the rate limit.
func (c *Cloudflare) exceeded() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if wait := c.blocked.Sub(now); wait > 0 {
		return wait
	}
	c.recent = slices.DeleteFunc(c.recent, func(t time.Time) bool { return now.Sub(t) >= c.window })
	if len(c.recent) >= c.limit {
		c.blocked = now.Add(c.window)
		return c.window
	}
	c.recent = append(c.recent, now)
	return 0
}

func reply(w http.ResponseWriter, result any, info *resultInfo, err *apiError) {
	e := envelope{Result: result, Success: err == nil, Errors: []*apiError{}, Messages: []string{}, ResultInfo: info}
	status := http.StatusOK
	if err != nil {
		e.Result, e.Errors, status = nil, []*apiError{err}, err.status
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(e) // a client that is gone needs no answer
}

// handle checks the token and finds what the request is for.
func (c *Cloudflare) handle(r *http.Request) (any, *resultInfo, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.authenticate(r); err != nil {
		return nil, nil, err
	}
	path := strings.TrimPrefix(r.URL.Path, "/client/v4")
	parts := strings.Split(strings.Trim(path, "/"), "/")
	if parts[0] != "zones" {
		return nil, nil, noRoute(path)
	}
	if len(parts) == 1 && r.Method == http.MethodGet {
		result, info := c.listZones(r)
		return result, info, nil
	}
	if len(parts) < 3 || len(parts) > 4 || parts[2] != "dns_records" {
		return nil, nil, noRoute(path)
	}
	i := slices.IndexFunc(c.zones, func(z *cloudflareZone) bool { return z.ID == parts[1] })
	if i < 0 {
		return nil, nil, noRoute(path)
	}
	z := c.zones[i]
	if len(parts) == 3 && r.Method == http.MethodGet {
		result, info := listRecords(z, r)
		return result, info, nil
	}
	before := slices.Clone(z.records)
	result, err := c.write(z, r, strings.Join(parts[3:], ""))
	if err != nil {
		z.records = before
		return nil, nil, err
	}
	c.publish(z)
	return result, nil, nil
}

func noRoute(path string) *apiError {
	return &apiError{status: http.StatusNotFound, Code: 7003, Message: "Could not route to /client/v4" + path +
		", perhaps your object identifier is invalid?"}
}

func (c *Cloudflare) authenticate(r *http.Request) *apiError {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	switch {
	case scheme != "Bearer" || len(token) < 20:
		return &apiError{
			status: http.StatusBadRequest, Code: 6003, Message: "Invalid request headers",
			Chain: []*apiError{{Code: 6111, Message: "Invalid format for Authorization header"}},
		}
	case token == c.ReadToken && r.Method != http.MethodGet:
		return &apiError{status: http.StatusForbidden, Code: 10000, Message: "Authentication error"}
	case token != c.Token && token != c.ReadToken:
		return &apiError{status: http.StatusForbidden, Code: 9109, Message: "Invalid access token"}
	}
	return nil
}

func (c *Cloudflare) listZones(r *http.Request) (any, *resultInfo) {
	type zone struct {
		ID     string `json:"id"`
		Name   string `json:"name"`
		Status string `json:"status"`
		Paused bool   `json:"paused"`
		Type   string `json:"type"`
	}
	zones := []zone{}
	for _, z := range c.zones {
		if name := r.URL.Query().Get("name"); name == "" || name == z.Name {
			zones = append(zones, zone{ID: z.ID, Name: z.Name, Status: z.Status, Type: "full"})
		}
	}
	return page(zones, r, 20, 50)
}

func listRecords(z *cloudflareZone, r *http.Request) (any, *resultInfo) {
	q := r.URL.Query()
	matches := func(value string, filters ...string) bool {
		return !slices.ContainsFunc(filters, func(f string) bool { return q.Has(f) && !strings.EqualFold(q.Get(f), value) })
	}
	records := []cloudflareRecord{}
	for _, rec := range z.records {
		if matches(rec.Type, "type") && matches(rec.Name, "name", "name.exact") && matches(rec.Content, "content", "content.exact") &&
			strings.Contains(rec.Content, q.Get("content.contains")) {
			records = append(records, rec)
		}
	}
	return page(records, r, 100, 5_000_000)
}

// page cuts one page out.
func page[T any](all []T, r *http.Request, perPage, most int) (any, *resultInfo) {
	number := 1
	if n, err := strconv.Atoi(r.URL.Query().Get("page")); err == nil && n > 0 {
		number = n
	}
	if n, err := strconv.Atoi(r.URL.Query().Get("per_page")); err == nil && n > 0 {
		perPage = min(n, most)
	}
	from := min((number-1)*perPage, len(all))
	to := min(from+perPage, len(all))
	return all[from:to], &resultInfo{
		Page: number, PerPage: perPage, Count: to - from, TotalCount: len(all), TotalPages: (len(all) + perPage - 1) / perPage,
	}
}
