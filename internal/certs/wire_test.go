package certs

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/acme"

	"github.com/stspub/stspub/internal/config"
)

// stalled is a transport whose answers begin, and never end.
type stalled struct{ part string }

func (s stalled) RoundTrip(req *http.Request) (*http.Response, error) {
	body, w := io.Pipe()
	go func() {
		_, _ = io.WriteString(w, s.part)
		<-req.Context().Done()
		w.CloseWithError(req.Context().Err())
	}()
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: body, Request: req}, nil
}

// TestStalledAnswerFreesTheSession: who waits for an answer that never ends gives it up, and with it what others wait for.
func TestStalledAnswerFreesTheSession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, err := NewACME(config.ACME{Name: "ca", Directory: "https://ca.test/dir"}, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		a.http.Transport = newWire(a.cfg.Directory, 0, stalled{`{"newNonce":"https://ca.test/`})
		begun := time.Now()
		_, err = a.Identities(context.Background())
		if d := time.Since(begun); !errors.Is(err, context.DeadlineExceeded) || d != answerTimeout {
			t.Errorf("after %s: %v", d, err)
		}
		if v := judge(overdue(t.Context(), err), "a.test", "a.test"); !v.outage {
			t.Error("it is the name's fault")
		}
		a.http.Transport = newWire(a.cfg.Directory, 0, answering{`{}`})
		if _, err := a.Identities(context.Background()); err != nil {
			t.Errorf("the next question: %v", err)
		}
	})
}

// answering is a transport that answers everything with a text.
type answering struct{ text string }

func (a answering) RoundTrip(req *http.Request) (*http.Response, error) {
	body := io.NopCloser(strings.NewReader(a.text))
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: body, Request: req}, nil
}

// TestAnswerThatBreaksOff: what the authority wanted to say is not known, so it has not refused anything.
func TestAnswerThatBreaksOff(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if w.Header().Set("Replay-Nonce", "nonce"); r.Method == http.MethodHead {
			return
		}
		w.Header().Set("Content-Type", "application/problem+json")
		w.Header().Set("Content-Length", "100")
		w.WriteHeader(http.StatusBadRequest)
		io.WriteString(w, `{"type":"urn:ietf`)
	}))
	defer s.Close()
	a, err := NewACME(config.ACME{Name: "ca", Directory: s.URL}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = a.Identities(t.Context())
	want := "read the answer of the authority at " + strings.TrimPrefix(s.URL, "http://") + ": unexpected EOF"
	if err == nil || !strings.HasSuffix(err.Error(), want) || !judge(err, "a.test", "a.test").outage {
		t.Errorf("Identities: %v, %+v, want %s, and an outage", err, judge(err, "a.test", "a.test"), want)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	client := a.client(&passage{session: session{key: key, directory: directory{raw: []byte(`{"newOrder":"` + s.URL + `/order","newNonce":"` + s.URL + `"}`)}}})
	_, err = client.AuthorizeOrder(t.Context(), acme.DomainIDs("a.test"))
	if err = explain(t.Context(), err, ""); err == nil || err.Error() != want || !judge(err, "a.test", "a.test").outage {
		t.Errorf("an order: %v, %+v, want %s, and an outage", err, judge(err, "a.test", "a.test"), want)
	}
}

// silent is an authority that never says when to renew.
type silent struct{ Authority }

func (silent) Name() string  { return "silent" }
func (silent) Staging() bool { return false }
func (silent) Window(ctx context.Context, _ []byte) (Window, error) {
	<-ctx.Done()
	return Window{}, ctx.Err()
}

// TestQuestionForAWindowEnds: an authority that is silent is asked again later, and known to be away.
func TestQuestionForAWindowEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := New(Config{Authorities: []Authority{silent{}}})
		p := fake(k.memory, 1, 600)
		p.authority = k.memory.authorityOf("silent")
		p.notBefore, p.notAfter = time.Now().Unix(), time.Now().Add(90*testDay).Unix()
		k.memory.set("mta-sts.a.test", p)
		begun := time.Now()
		k.window(t.Context(), "mta-sts.a.test")
		known, _ := k.memory.find("mta-sts.a.test")
		l := k.schedule.lines[0]
		if d := time.Since(begun); d != askFor || l.renewals.outage.count != 1 || known.poll != time.Now().Add(askAgain).Unix() {
			t.Errorf("after %s: %d outages, asked again at %d", d, l.renewals.outage.count, known.poll)
		}
	})
}
