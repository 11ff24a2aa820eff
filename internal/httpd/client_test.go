package httpd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stspub/stspub/internal/certs"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

func TestClient(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{unixAddr(t), "127.0.0.1:0"} {
		w := runAdmin(t, addr, false)
		list := func(faults bool) (names []policygen.Name) {
			if err := w.Domains(t.Context(), faults, func(s publish.Status) error {
				names = append(names, s.Name)
				return nil
			}); err != nil {
				t.Errorf("Domains = %v", err)
			}
			return names
		}
		if diff := cmp.Diff([]policygen.Name{"example.org", "shop.example", "xn--mnchen-3ya.example"}, list(false)); diff != "" {
			t.Errorf("Domains: -want +got\n%s", diff)
		}
		if diff := cmp.Diff([]policygen.Name{"shop.example"}, list(true)); diff != "" {
			t.Errorf("Domains with faults: -want +got\n%s", diff)
		}
		for raw, i := range map[string]int{"example.org": 0, "Shop.Example.": 1, "münchen.example": 2} {
			got, err := w.Domain(t.Context(), raw)
			if diff := cmp.Diff(newFakeManager().domains[i], got); diff != "" || err != nil {
				t.Errorf("Domain(%q): %v, -want +got\n%s", raw, err, diff)
			}
		}
		err := errors.Join(w.Promote(t.Context(), "example.org", false), w.Promote(t.Context(), "example.org", true), w.Expel(t.Context(), "example.org"),
			w.Retry(t.Context(), "example.org"))
		if want := []string{"promote example.org", "demote example.org", "expel example.org", "retry example.org"}; err != nil || !slices.Equal(w.manager.acts, want) {
			t.Errorf("acts = %q, %v, want %q", w.manager.acts, err, want)
		}
		if err := w.Adopt(t.Context(), "example.org"); err != nil {
			t.Errorf("Adopt = %v", err)
		}
		w.manager.with(func(m *fakeManager) {
			if m.adopted != "example.org" {
				t.Errorf("adopted %q, want example.org", m.adopted)
			}
		})
		report, err := w.Reload(t.Context(), "0f")
		want := publish.ReloadReport{Added: 1, Changed: 2, Removed: 3, Restored: 4, Forced: []string{"0f"}}
		if diff := cmp.Diff(want, report); diff != "" || err != nil {
			t.Errorf("Reload: %v, -want +got\n%s", err, diff)
		}
		faults, err := w.Faults(t.Context())
		if diff := cmp.Diff(newFakeManager().faults, faults); diff != "" || err != nil {
			t.Errorf("Faults: %v, -want +got\n%s", err, diff)
		}
		certificates(t, w)
		if err := w.Healthz(t.Context()); err != nil {
			t.Errorf("Healthz = %v", err)
		}
	}
}

func certificates(t *testing.T, w *adminWorld) {
	t.Helper()
	o, err := w.Certificates(t.Context())
	if diff := cmp.Diff(w.manager.Certificates(), o); diff != "" || err != nil {
		t.Errorf("Certificates: %v, -want +got\n%s", err, diff)
	}
	for waiting, want := range map[bool][]certs.Named{false: namedCertificates(), true: namedCertificates()[1:]} {
		var got []certs.Named
		err := w.CertificateNames(t.Context(), waiting, func(n certs.Named) error {
			got = append(got, n)
			return nil
		})
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("CertificateNames(%v): %v, -want +got\n%s", waiting, err, diff)
		}
	}
}

func TestClientErrors(t *testing.T) {
	t.Parallel()
	w := runAdmin(t, unixAddr(t), false)
	check := func(name string, err error, want string) {
		t.Helper()
		if err == nil || err.Error() != want {
			t.Errorf("%s = %v, want %s", name, err, want)
		}
	}
	_, err := w.Domain(t.Context(), "nobody.example")
	check("Domain", err, "show domain: domain nobody.example is not configured here")
	if !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Domain = %v, want store.ErrNotFound", err)
	}
	check("Expel", w.Expel(t.Context(), "nobody.example"), "expel domain: domain nobody.example is not configured here")
	check("Retry", w.Retry(t.Context(), "nobody.example"), "retry domain: domain nobody.example is not configured here")
	check("Adopt", w.Adopt(t.Context(), "nobody.example"), "adopt domain: domain nobody.example is not configured here")

	w.manager.with(func(m *fakeManager) {
		m.doErr = fmt.Errorf("%w: stspub.toml:3: mxset.eu.mode: is missing", publish.ErrRefused)
	})
	_, err = w.Reload(t.Context(), "")
	check("Reload", err, "reload: refused: stspub.toml:3: mxset.eu.mode: is missing")

	enough := errors.New("enough")
	if err := w.Domains(t.Context(), false, func(publish.Status) error { return enough }); err != enough {
		t.Errorf("Domains = %v, want the error of the function", err)
	}
}

// TestClientNoticesACutListing: a list that ends early must not look like a whole one.
func TestClientNoticesACutListing(t *testing.T) {
	t.Parallel()
	w := runAdmin(t, unixAddr(t), false)
	fail := func(domains []publish.Status) error {
		w.manager.with(func(m *fakeManager) {
			m.domains, m.eachErr = domains, errors.New("the disk is on fire")
		})
		return w.Domains(t.Context(), false, func(publish.Status) error { return nil })
	}
	var some []publish.Status
	for i := range pageSize { // a page, which the next one does not follow
		some = append(some, publish.Status{Name: policygen.Name(fmt.Sprintf("d%04d.example", i)), Tenant: "default"})
	}
	if err := fail(some); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("Domains cut after a page = %v, want an unexpected end", err)
	}
	err := fail(nil)
	if problem, ok := errors.AsType[*Problem](err); !ok || problem.Status != 500 {
		t.Errorf("Domains cut before the first = %v, want a 500", err)
	}
	if strings.Contains(w.log.String(), "panic") {
		t.Errorf("the log has\n%s", w.log.String())
	}
}

func TestClientWithoutServer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	dead := filepath.Join(dir, "dead.sock")
	deadSocket(t, dead)
	ln := listen(t)
	port := ln.Addr().String()
	_ = ln.Close()
	stranger := strangeServer(t)

	for addr, want := range map[string]string{
		"unix:" + dir + "/none.sock": `connect to "unix:` + dir + `/none.sock": no such socket; is "stspub serve" running, and is this the [server] admin of its configuration?: file does not exist`,
		"unix:" + dead:               `connect to "unix:` + dead + `": nobody listens there; is "stspub serve" running, and is this the [server] admin of its configuration?: connection refused`,
		port:                         `connect to "` + port + `": nobody listens there; is "stspub serve" running, and is this the [server] admin of its configuration?: connection refused`,
		stranger:                     `ask "` + stranger + `": answered 418 I'm a teapot, which is not how stspub answers`,
	} {
		if err := NewClient(addr).Healthz(t.Context()); err == nil || err.Error() != want {
			t.Errorf("Healthz at %s = %v, want %s", addr, err, want)
		}
	}
	// Tests may run as root, to whom every socket is open, so this one is told what the kernel would say.
	err := NewClient("unix:/s").unreached(&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", os.ErrPermission)})
	if want := `connect to "unix:/s": only the user and the group of the socket may; run the command as one of them, or by sudo: permission denied`; err.Error() != want {
		t.Errorf("refused socket = %v, want %s", err, want)
	}
}

// strangeServer is something else on the port.
func strangeServer(t *testing.T) string {
	t.Helper()
	ln := listen(t)
	s := newServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }), 10, slog.New(slog.DiscardHandler))
	background(t, func(ctx context.Context) error { return s.Run(ctx, ln) })
	return ln.Addr().String()
}
