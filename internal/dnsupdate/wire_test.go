package dnsupdate_test

import (
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/miekg/dns"

	"github.com/stspub/stspub/internal/dnsupdate"
)

// trouble befalls one request on its way.
type trouble struct {
	write  bool // the first request that writes; otherwise the first
	status int  // HTTP: answered in place of the provider, with body and Retry-After
	body   string
	after  string
	cut    bool // the provider carries it out, and the answer is lost
	silent bool // nobody ever answers
}

// wire is the way to an HTTP API.
type wire struct {
	mu       sync.Mutex // guards the fields below
	troubles []trouble
	writes   int
}

func (w *wire) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.writes
}

// RoundTrip lets a request pass, or not.
func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	tr := w.due(r.Method != http.MethodGet)
	if tr.silent {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	if tr.status != 0 {
		header := http.Header{}
		if tr.after != "" {
			header.Set("Retry-After", tr.after)
		}
		resp := answer(tr.status, tr.body, header)
		resp.Request = r
		return resp, nil
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err == nil && tr.cut {
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		return nil, io.EOF
	}
	return resp, err
}

func (w *wire) due(write bool) trouble {
	w.mu.Lock()
	defer w.mu.Unlock()
	if write {
		w.writes++
	}
	i := slices.IndexFunc(w.troubles, func(tr trouble) bool { return write || !tr.write })
	if i < 0 {
		return trouble{}
	}
	tr := w.troubles[i]
	w.troubles = slices.Delete(w.troubles, i, i+1)
	return tr
}

// behind opens the account so that trouble befalls one request.
func (p *place) behind(t *testing.T, tr trouble) dnsupdate.Account {
	t.Helper()
	q := *p
	if q.wire != nil {
		q.wire.mu.Lock()
		q.wire.troubles = []trouble{tr}
		q.wire.mu.Unlock()
		return q.open(t, dnsupdate.Options{})
	}
	var over atomic.Bool
	q.config.Server = startMeddler(t, q.config.Server, func(m message) bool {
		if tr.write && !m.writes || over.Swap(true) {
			return true
		}
		if tr.silent {
			<-t.Context().Done()
		}
		return false
	}).addr
	return q.open(t, dnsupdate.Options{})
}

// meddler is a TCP relay before a DNS server that meddles with messages.
type meddler struct {
	addr     string
	messages atomic.Int64
}

// message is one on its way to a server.
type message struct {
	n      int64 // from 1
	writes bool  // it is an update that changes something
}

// startMeddler calls meddle for each message before the server's answer is passed on; false cuts the connection in place
// of that.
func startMeddler(t testing.TB, server string, meddle func(m message) bool) *meddler {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	m := &meddler{addr: l.Addr().String()}
	go func() { // ends with the listener
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go m.relay(conn, server, meddle)
		}
	}()
	return m
}

func (m *meddler) relay(client net.Conn, server string, meddle func(m message) bool) {
	defer client.Close()
	upstream, err := net.Dial("tcp", server)
	if err != nil {
		return
	}
	defer upstream.Close()
	from, to := &dns.Conn{Conn: client}, &dns.Conn{Conn: upstream}
	for {
		question, err := from.ReadMsgHeader(nil)
		if err != nil {
			return
		}
		if _, err = to.Write(question); err != nil {
			return
		}
		answer, err := to.ReadMsgHeader(nil)
		updates := question[8] != 0 || question[9] != 0 // NSCOUNT
		if err != nil || !meddle(message{m.messages.Add(1), updates}) {
			return
		}
		if _, err := from.Write(answer); err != nil {
			return
		}
	}
}

const html502 = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>nginx</body></html>"
