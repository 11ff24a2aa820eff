package httpd

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/stspub/stspub/internal/lab/labtest"
)

// echoing serves, behind proxies, the address of who asks.
func echoing(t *testing.T, proxies ...string) (addr string) {
	t.Helper()
	var trusted []netip.Prefix
	for _, p := range proxies {
		trusted = append(trusted, netip.MustParsePrefix(p))
	}
	ln := listen(t)
	s := newServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.RemoteAddr) }), 100, slog.New(slog.DiscardHandler))
	background(t, func(ctx context.Context) error { return s.Run(ctx, BehindProxies(ln, trusted)) })
	return ln.Addr().String()
}

// askFrom connects from an address of this machine, says what comes first, and returns the body of the answer.
func askFrom(t *testing.T, from, to, first string) (string, error) {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := d.DialContext(t.Context(), "tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, first+"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n"); err != nil {
		return "", err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return "", err
	}
	body, err := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("answered %s", resp.Status)
	}
	return string(body), err
}

// TestProxyProtocol: a real HAProxy in front is believed about who connects, in both versions, and nobody else is.
func TestProxyProtocol(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"send-proxy", "send-proxy-v2", "send-proxy-v2-ssl-cn"} {
		to := labtest.StartHAProxy(t, echoing(t, "127.0.0.1/32"), version)
		if got, err := askFrom(t, "127.0.0.9", to, ""); err != nil || !strings.HasPrefix(got, "127.0.0.9:") {
			t.Errorf("%s: asked from 127.0.0.9, the server sees %q, %v", version, got, err)
		}
	}
	to := labtest.StartHAProxy(t, echoing(t, "127.0.0.1/32"), "")
	if got, err := askFrom(t, "127.0.0.9", to, ""); err != nil || !strings.HasPrefix(got, "127.0.0.1:") {
		t.Errorf("a proxy that says nothing: the server sees %q, %v", got, err)
	}
	lie := "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"
	if got, err := askFrom(t, "127.0.0.9", echoing(t, "127.0.0.1/32"), lie); err == nil {
		t.Errorf("a stranger who speaks as a proxy is answered, as %q", got)
	}
	if got, err := askFrom(t, "127.0.0.1", echoing(t), lie); err == nil {
		t.Errorf("without proxies one who speaks as such is answered, as %q", got)
	}
	if got, err := askFrom(t, "127.0.0.1", echoing(t, "127.0.0.0/8"), strings.Repeat("PROXY ", 100)); err == nil {
		t.Errorf("a broken line is answered, as %q", got)
	}
}

// TestPolicyBehindProxy: senders that come by a proxy get their policies, those at the same time too.
func TestPolicyBehindProxy(t *testing.T) {
	t.Parallel()
	w := newPublic(t, nil)
	secure, plain := listen(t), listen(t)
	proxies := []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	w.stop = background(t, func(ctx context.Context) error {
		return w.Public.Run(ctx, BehindProxies(secure, proxies), BehindProxies(plain, proxies))
	})
	w.secure = labtest.StartHAProxy(t, secure.Addr().String(), "send-proxy-v2")
	var senders errgroup.Group
	for range 20 {
		senders.Go(func() error {
			conn, err := tls.Dial("tcp", w.secure, &tls.Config{ServerName: "mta-sts.a.example", RootCAs: w.ca.roots})
			if err != nil {
				return err
			}
			defer conn.Close()
			if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: mta-sts.a.example\r\nConnection: close\r\n\r\n", policyPath); err != nil {
				return err
			}
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				return err
			}
			return goodPolicy(resp)
		})
	}
	if err := senders.Wait(); err != nil {
		t.Error(err)
	}
}
