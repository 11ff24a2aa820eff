package httpd

import (
	"fmt"
	"net/http"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// What a tenant may ask of a node's API with all its tokens: a control panel that adds domains one by one fits in it.
const (
	requestsASecond = 100
	requestsAtOnce  = 500

	underWayEach = 16 // beside those that have places of their own, as below
	bulksAtOnce  = 2
	// Of these, the service has as many as a tenant.
	followersEach, followersAll = 8, 128
	testsEach, testsAll         = 2, 16
)

// shares count what tenants ask for, so that one leaves room for the others. Only tenants that have good tokens are in it.
type shares struct {
	limit rate.Limit // of requests of each, in a second

	underWay, bulks, followers, tests places

	mu       sync.Mutex // guards requests
	requests map[string]*rate.Limiter
}

func newShares(limit rate.Limit) *shares {
	return &shares{
		limit: limit, requests: make(map[string]*rate.Limiter),
		underWay:  places{what: "requests", each: underWayEach, after: time.Second},
		bulks:     places{what: "bulk requests", each: bulksAtOnce, after: bulkPatience},
		followers: places{what: "requests that follow", each: followersEach, all: followersAll, after: bulkPatience},
		tests:     places{what: "tests of webhooks", each: testsEach, all: testsAll, after: 15 * time.Second},
	}
}

// request counts one of a tenant, or says that it has to wait.
func (s *shares) request(tenant string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.requests[tenant]
	if l == nil {
		l = rate.NewLimiter(s.limit, requestsAtOnce)
		s.requests[tenant] = l
	}
	if l.Allow() {
		return nil
	}
	return &Problem{
		Status: http.StatusTooManyRequests, after: time.Second,
		Detail: fmt.Sprintf("more than %d requests a second; try again in a second, or send many changes in one with POST /v1/domains:bulk", requestsASecond),
	}
}

// places are for what is under way: each tenant has some, and so has the service.
type places struct {
	what  string
	each  int
	all   int           // of all tenants; 0: any number
	after time.Duration // when to ask for one again

	mu    sync.Mutex // guards the fields below
	of    map[string]int
	taken int // by tenants
}

// enter takes a place for a tenant, or with "" for the service, until leave is called, or says that there is none.
func (p *places) enter(tenant string) (leave func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.of[tenant] >= p.each:
		return nil, &Problem{
			Status: http.StatusTooManyRequests, after: p.after,
			Detail: fmt.Sprintf("%d %s are under way; send this one when one of them has ended", p.each, p.what),
		}
	case tenant != "" && p.all > 0 && p.taken >= p.all:
		return nil, &Problem{
			Status: http.StatusTooManyRequests, after: p.after,
			Detail: fmt.Sprintf("this node takes no more %s now; try again later", p.what),
		}
	}
	p.count(tenant, 1)
	return sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.count(tenant, -1)
	}), nil
}

// count adds n to what is taken. p.mu is held.
func (p *places) count(tenant string, n int) {
	if p.of == nil {
		p.of = make(map[string]int)
	}
	if tenant != "" {
		p.taken += n
	}
	if p.of[tenant] += n; p.of[tenant] == 0 {
		delete(p.of, tenant)
	}
}
