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
	bulksAtOnce     = 2
)

// shares count what tenants ask for, so that one leaves room for the others. Only tenants that have good tokens are in it.
type shares struct {
	requests rate.Limit // of each, in a second

	mu sync.Mutex // guards of, and bulks of each
	of map[string]*share
}

type share struct {
	requests *rate.Limiter
	bulks    int // under way
}

// share returns that of a tenant. s.mu is held.
func (s *shares) share(tenant string) *share {
	it := s.of[tenant]
	if it == nil {
		if s.of == nil {
			s.of = make(map[string]*share)
		}
		it = &share{requests: rate.NewLimiter(s.requests, requestsAtOnce)}
		s.of[tenant] = it
	}
	return it
}

// request counts one of a tenant, or says that it has to wait.
func (s *shares) request(tenant string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.share(tenant).requests.Allow() {
		return nil
	}
	return &Problem{
		Status: http.StatusTooManyRequests,
		Detail: fmt.Sprintf("more than %d requests a second; try again in a second, or send many changes in one with POST /v1/domains:bulk", requestsASecond),
	}
}

// bulk counts one of a tenant until done is called, or says that others have to end first.
func (s *shares) bulk(tenant string) (done func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	it := s.share(tenant)
	if it.bulks >= bulksAtOnce {
		return nil, &Problem{
			Status: http.StatusTooManyRequests,
			Detail: fmt.Sprintf("%d bulk requests are under way; send this one when one of them has ended", it.bulks),
		}
	}
	it.bulks++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		it.bulks--
	}, nil
}

// retryAfter is the header of an answer that says to come again. RFC 9110, Section 10.2.3.
func retryAfter(w http.ResponseWriter, after time.Duration) {
	w.Header().Set("Retry-After", fmt.Sprint(int(after/time.Second)))
}
