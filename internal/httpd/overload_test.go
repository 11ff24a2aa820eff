package httpd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/stspub/stspub/internal/publish"
)

// TestOpenHandshakesAreCapped: who connects and says nothing, or begins a hello, takes one of the places, and for no longer
// than a handshake may take.
func TestOpenHandshakesAreCapped(t *testing.T) {
	t.Parallel()
	const places = 4
	w := newPublic(t, func(cfg *PublicConfig) { cfg.MaxConns = places })
	w.Public.secure.http.ReadHeaderTimeout = 2 * time.Second
	w.run(t)
	for i := range 3 * places {
		conn, err := net.Dial("tcp", w.secure)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "\x16\x03\x01\x02\x00\x01"[:6*(i%2)]); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if err := w.try(ctx, "mta-sts.a.example"); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a sender beside %d half-open handshakes = %v, want it to wait", 3*places, err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := w.try(ctx, "mta-sts.a.example"); err != nil {
		t.Errorf("a sender after their time = %v", err)
	}
}

// TestLargeHelloIsCut sends hellos of 64 KB and more, which crypto/tls neither keeps nor waits for.
func TestLargeHelloIsCut(t *testing.T) {
	t.Parallel()
	w := newPublic(t, nil)
	w.Public.secure.http.ReadHeaderTimeout = time.Minute // it is not for the clock to end these
	w.run(t)
	hello := func(length int) []byte {
		body := append([]byte{1, byte(length >> 16), byte(length >> 8), byte(length)}, bytes.Repeat([]byte{7}, length)...)
		var out []byte
		for len(body) > 0 {
			n := min(len(body), 16<<10)
			out = append(binary.BigEndian.AppendUint16(append(out, 0x16, 3, 1), uint16(n)), body[:n]...)
			body = body[n:]
		}
		return out
	}
	for _, length := range []int{1 << 16, 1<<16 + 1, 1<<24 - 1} {
		conn, err := net.Dial("tcp", w.secure)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		text := hello(min(length, 1<<16))
		text[5+1], text[5+2], text[5+3] = byte(length>>16), byte(length>>8), byte(length) // more is announced than comes
		go func() { _, _ = conn.Write(text) }()                                           // it may be cut off
		answer, err := io.ReadAll(conn)
		if timedOut(err) || len(answer) > 7 {
			t.Errorf("a hello of %d bytes is answered by %d bytes, %v, want an alert and the end", length, len(answer), err)
		}
	}
	if err := w.try(t.Context(), "mta-sts.a.example"); err != nil {
		t.Errorf("a sender after these = %v", err)
	}
}

// TestRenegotiationIsRefused: a client of TLS 1.2 cannot have a second handshake made over one connection.
func TestRenegotiationIsRefused(t *testing.T) {
	t.Parallel()
	w := newPublic(t, nil).run(t)
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Fatal("openssl is not installed: apt-get install openssl")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "s_client", "-connect", w.secure, "-servername", "mta-sts.a.example", "-tls1_2")
	in, out, err := os.Pipe() // stays open
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer out.Close()
	if _, err := io.WriteString(out, "R\n"); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, &said, &said
	err = cmd.Run()
	if ctx.Err() != nil || err == nil || !strings.Contains(said.String(), "RENEGOTIATING") || !strings.Contains(said.String(), "alert unexpected message") {
		t.Errorf("renegotiation = %v, want an alert and the end of the connection; openssl said\n%s", err, said.String())
	}
}

// slowPolicies are policies that take their time, and count who asks at once.
type slowPolicies struct {
	Policies
	release   chan struct{}
	asks, all atomic.Int32
	most      atomic.Int32
}

func (s *slowPolicies) Policy(host string) (*publish.Page, bool) {
	s.all.Add(1)
	n := s.asks.Add(1)
	defer s.asks.Add(-1)
	for old := s.most.Load(); n > old && !s.most.CompareAndSwap(old, n); old = s.most.Load() {
	}
	<-s.release
	return s.Policies.Policy(host)
}

// h2 is a connection that speaks HTTP/2 as Go's own client would not.
type h2 struct {
	*http2.Framer
	conn  net.Conn
	block []byte // the header of a request for the policy
}

func (w *world) h2(t *testing.T) *h2 {
	t.Helper()
	const host = "mta-sts.a.example"
	conn := w.dial(t, host, "h2")
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, f := range []hpack.HeaderField{{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "https"}, {Name: ":authority", Value: host}, {Name: ":path", Value: policyPath}} {
		if err := enc.WriteField(f); err != nil {
			t.Fatal(err)
		}
	}
	h := &h2{http2.NewFramer(conn, conn), conn, block.Bytes()}
	if err := h.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return h
}

// ask begins a request.
func (h *h2) ask(stream uint32) error {
	return h.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: h.block, EndStream: true, EndHeaders: true})
}

// ended reads until the server ends the connection, and returns the code of its GOAWAY.
func (h *h2) ended(t *testing.T) (code http2.ErrCode) {
	t.Helper()
	for {
		frame, err := h.ReadFrame()
		if timedOut(err) {
			t.Fatal("the connection is still open")
		}
		if err != nil {
			return code
		}
		if away, ok := frame.(*http2.GoAwayFrame); ok {
			code = away.ErrCode
		}
	}
}

// TestRapidReset begins requests and takes each back at once (CVE-2023-44487): no more of them are worked on than streams may
// be open, and the connection ends.
func TestRapidReset(t *testing.T) {
	t.Parallel()
	slow := &slowPolicies{release: make(chan struct{})}
	w := newPublic(t, func(cfg *PublicConfig) { slow.Policies, cfg.Policies = cfg.Policies, slow }).run(t)
	free := sync.OnceFunc(func() { close(slow.release) })
	t.Cleanup(free)
	h := w.h2(t)
	go func() {
		for stream := uint32(1); ; stream += 2 {
			if h.ask(stream) != nil || h.WriteRSTStream(stream, http2.ErrCodeCancel) != nil {
				return // the connection has ended
			}
		}
	}()
	if code := h.ended(t); code != http2.ErrCodeEnhanceYourCalm {
		t.Errorf("the connection ends with %v, want ENHANCE_YOUR_CALM", code)
	}
	if n := slow.most.Load(); n == 0 || n > 16 {
		t.Errorf("%d requests of one connection are worked on at a time, want up to 16", n)
	}
	free()
	if err := w.try(t.Context(), "mta-sts.a.example"); err != nil {
		t.Errorf("a sender after this = %v", err)
	}
}

// TestFloodsAreCut has clients send what costs them nothing, and never read.
func TestFloodsAreCut(t *testing.T) {
	t.Parallel()
	w := newPublic(t, nil).run(t)
	for name, flood := range map[string]func(h *h2, n uint32) error{
		"a header without end": func(h *h2, n uint32) error {
			if n == 0 {
				return h.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: h.block})
			}
			return h.WriteContinuation(1, false, bytes.Repeat([]byte{0}, 100)) // CVE-2023-45288
		},
		"pings": func(h *h2, _ uint32) error { return h.WritePing(false, [8]byte{}) },
		"settings": func(h *h2, _ uint32) error {
			return h.WriteSettings(http2.Setting{ID: http2.SettingHeaderTableSize, Val: 4096})
		},
		"streams beyond the limit": func(h *h2, n uint32) error {
			return h.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*n + 1, BlockFragment: h.block, EndHeaders: true})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := w.h2(t)
			const enough = 10_000_000 // what the kernel takes for a client that does not read is much less
			var err error
			for n := uint32(0); n < enough && err == nil; n++ {
				err = flood(h, n)
			}
			if err == nil || timedOut(err) {
				t.Errorf("%s = %v, want the end of the connection", name, err)
			}
		})
	}
}
