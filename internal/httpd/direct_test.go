package httpd

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"
)

// What senders ask, as their libraries write it.
var senders = []string{
	"GET " + policyPath + " HTTP/1.1\nHost: mta-sts.a.example\nUser-Agent: Go-http-client/1.1\nAccept-Encoding: gzip\n\n",
	"GET " + policyPath + " HTTP/1.1\nHost: mta-sts.a.example\nAccept: */*\nAccept-Encoding: gzip, deflate\nUser-Agent: aiohttp\n\n",
	"GET " + policyPath + " HTTP/1.1\nHost: mta-sts.a.example\nUser-Agent: curl/8.5.0\nAccept: */*\n\n",
	"GET " + policyPath + " HTTP/1.1\nhost: MTA-STS.a.example\nConnection: Keep-Alive\nAccept-Language: en;q=0.5\n\n",
	"GET " + policyPath + " HTTP/1.1\nHost: mta-sts.a.example.\n\n",
}

// What http.Server has to judge.
var others = []string{
	"", "\n\n", "GET",
	"GET " + policyPath + " HTTP/1.1\n\n",
	"GET " + policyPath + " HTTP/1.1\nHost: \n\n",
	"GET " + policyPath + " HTTP/1.1\nHost: mta-sts.a.example\n",
	"GET " + policyPath + " HTTP/1.1\nHost: mta-sts.a.example:443\n\n",
	"GET " + policyPath + " HTTP/1.1\nHost: mta-sts.b.example\n\n",
	"GET " + policyPath + " HTTP/1.1\nHost: mta-sts.nobody.example\n\n",
	"GET " + policyPath + " HTTP/1.1\nHost: mta-sts.a.example\nHost: mta-sts.a.example\n\n",
	"GET " + policyPath + " HTTP/1.1\nHost: mta-sts.a.example\nContent-Length: 0\n\n",
	"GET " + policyPath + " HTTP/1.1\nHost: mta-sts.a.example\nTransfer-Encoding: chunked\n\n0\n\n",
	"GET " + policyPath + " HTTP/1.1\nHost: mta-sts.a.example\nConnection: close\n\n",
	"GET " + policyPath + " HTTP/1.1\nHost: mta-sts.a.example\nExpect: 100-continue\n\n",
	"GET " + policyPath + " HTTP/1.1\nHost: mta-sts.a.example\nAccept : */*\n\n",
	"GET " + policyPath + " HTTP/1.1\nHost: mta-sts.a.example\nAccept: a\n b\n\n",
	"GET " + policyPath + " HTTP/1.1\nHost: mta-sts.a.example\nAccept: \x00\n\n",
	"GET " + policyPath + " HTTP/1.1\nHost: mta-sts.a.example\nAccept: \u00e9\n\n",
	"GET " + policyPath + " HTTP/1.1\n Host: mta-sts.a.example\n\n",
	"GET " + policyPath + " HTTP/1.1\nHost: mta-sts.a.example\n\nGET / HTTP/1.1\n",
	"GET " + policyPath + " HTTP/1.0\nHost: mta-sts.a.example\n\n",
	"GET " + policyPath + "? HTTP/1.1\nHost: mta-sts.a.example\n\n",
	"GET https://mta-sts.a.example" + policyPath + " HTTP/1.1\nHost: mta-sts.a.example\n\n",
	"HEAD " + policyPath + " HTTP/1.1\nHost: mta-sts.a.example\n\n",
	"GET / HTTP/1.1\nHost: mta-sts.a.example\n\n",
}

// TestDirectly sees that what senders ask is answered directly, in the very bytes of http.Server, and nothing else is.
func TestDirectly(t *testing.T) {
	t.Parallel()
	w := newPublic(t, nil)
	for _, text := range senders {
		w.compare(t, []byte(crlf(text)), true)
	}
	for _, text := range others {
		if answer, ok := w.directly([]byte(crlf(text)), "mta-sts.a.example", time.Now()); ok {
			t.Errorf("%q was answered directly: %q", text, answer)
		}
	}
	if _, ok := w.directly([]byte(crlf(senders[0])), "mta-sts.b.example", time.Now()); ok {
		t.Error("a request for another name than that of the handshake was answered directly")
	}
}

// FuzzDirectly looks for a request that is answered directly otherwise than by http.Server.
func FuzzDirectly(f *testing.F) {
	for _, text := range append(senders, others...) {
		f.Add([]byte(crlf(text)))
	}
	w := newPublic(f, nil)
	f.Fuzz(func(t *testing.T, request []byte) { w.compare(t, request, false) })
}

func crlf(text string) string { return strings.ReplaceAll(text, "\n", "\r\n") }

var dateLine = regexp.MustCompile(`\r\nDate: [^\r]{29}\r\n`)

// compare sees that a request is answered directly as http.Server does.
func (w *world) compare(t *testing.T, request []byte, must bool) {
	t.Helper()
	const host = "mta-sts.a.example"
	got, ok := w.directly(bytes.Clone(request), host, time.Now())
	if !ok {
		if must {
			t.Errorf("%q was not answered directly", request)
		}
		return
	}
	conn := &played{in: bytes.NewReader(request), name: host, closed: make(chan struct{})}
	server := &http.Server{Handler: w.routes()}
	if err := server.Serve(&once{conn: conn}); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	<-conn.closed
	if n := len(dateLine.FindAll(got, -1)); n != 1 {
		t.Errorf("%q: the answer has %d dates: %q", request, n, got)
	}
	if a, b := dateLine.ReplaceAll(got, nil), dateLine.ReplaceAll(conn.out.Bytes(), nil); !bytes.Equal(a, b) {
		t.Errorf("%q is answered\n%q, by http.Server\n%q", request, a, b)
	}
}

// once is a listener with one connection.
type once struct {
	net.Listener
	conn net.Conn
}

func (l *once) Accept() (net.Conn, error) {
	c := l.conn
	if l.conn = nil; c == nil {
		return nil, io.EOF
	}
	return c, nil
}

func (*once) Close() error { return nil }

// played is a connection whose client says something and waits for the end.
type played struct {
	net.Conn
	in     *bytes.Reader
	out    bytes.Buffer
	name   string
	closed chan struct{}
}

func (c *played) Read(p []byte) (int, error)     { return c.in.Read(p) }
func (c *played) Write(p []byte) (int, error)    { return c.out.Write(p) }
func (*played) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (*played) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (*played) SetDeadline(time.Time) error      { return nil }
func (*played) SetReadDeadline(time.Time) error  { return nil }
func (*played) SetWriteDeadline(time.Time) error { return nil }
func (c *played) ConnectionState() tls.ConnectionState {
	return tls.ConnectionState{ServerName: c.name}
}

func (c *played) Close() error {
	close(c.closed)
	return nil
}

// A connection goes on with whatever is asked, also when some of it is answered directly and some is not.
func TestDirectAndNot(t *testing.T) {
	t.Parallel()
	w := newPublic(t, nil).run(t)
	const host = "mta-sts.a.example"
	simple := "GET " + policyPath + " HTTP/1.1\nHost: " + host + "\n\n"
	conn := w.dial(t, host)
	for i, tt := range []struct {
		method, text string
		status       int
	}{
		{"GET", simple, 200},
		{"GET", simple, 200},
		{"HEAD", strings.Replace(simple, "GET", "HEAD", 1), 200},
		{"GET", simple, 200},
		{"GET", strings.Replace(simple, host, "mta-sts.b.example", 1), 421},
		{"GET", simple, 200},
	} {
		got := raw(t, conn, tt.method, tt.text)
		if got.status != tt.status || tt.status == 200 && tt.method == "GET" && got.body != textA || got.closes {
			t.Errorf("request %d = %d %q, closing: %v, want %d", i, got.status, got.body, got.closes, tt.status)
		}
	}
	// Two at once are not answered as one.
	both := w.dial(t, host)
	if _, err := io.WriteString(both, crlf(simple+strings.Replace(simple, "\n\n", "\nConnection: close\n\n", 1))); err != nil {
		t.Fatal(err)
	}
	answers, err := io.ReadAll(both)
	if n := bytes.Count(answers, []byte(textA)); err != nil || n != 2 {
		t.Errorf("two requests at once: %d answers, %v: %q", n, err, answers)
	}
}
