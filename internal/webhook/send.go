package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/stspub/stspub/internal/store"
)

const (
	answerSize = 4 << 10 // of an answer is read, so that the connection can be used again
	headerSize = 32 << 10
)

// Message is the body of a call.
type Message struct {
	Type      string    `json:"type"`      // the kind of the event
	Timestamp time.Time `json:"timestamp"` // when it happened
	Data      Data      `json:"data"`
}

// Data is what a [Message] says of an event.
type Data struct {
	Seq    int64           `json:"seq,omitempty"`    // its number; later events have greater ones
	Tenant string          `json:"tenant,omitempty"` // whose it is; without one, the service's own
	Name   string          `json:"name,omitempty"`   // the domain, MX set, account and so on
	Actor  string          `json:"actor,omitempty"`  // who did it
	Text   string          `json:"text"`             // what happened, for people
	Before json.RawMessage `json:"before,omitempty"` // what was, and what is since
	After  json.RawMessage `json:"after,omitempty"`
}

// message is the body of the call for an event, the same at every try.
func message(e store.Event) ([]byte, error) {
	return json.Marshal(Message{Type: e.Kind, Timestamp: e.At.UTC(), Data: Data{
		Seq: e.Seq, Tenant: e.Tenant, Name: e.Name, Actor: e.Actor, Text: e.Text, Before: e.Before, After: e.After,
	}})
}

// messageID is the id of the call for an event, the same at every try and no other's. A store that is put back to a copy gives
// numbers a second time, at another time.
func messageID(w store.Webhook, e store.Event) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %d %d %d", w.Tenant, w.Name, w.Created.UnixMicro(), e.Seq, e.At.UnixMicro()))
	return "msg_" + hex.EncodeToString(sum[:16])
}

// sign returns the signatures of a call, one for each secret that counts.
func sign(w store.Webhook, id string, at time.Time, body []byte) string {
	signature := func(secret []byte) string {
		mac := hmac.New(sha256.New, secret)
		_, _ = fmt.Fprintf(mac, "%s.%d.%s", id, at.Unix(), body) // a hash takes everything
		return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	}
	all := signature(w.Secret)
	if len(w.Old) > 0 && at.Before(w.OldUntil) {
		all += " " + signature(w.Old)
	}
	return all
}

// answer is what came of a call.
type answer struct {
	status  int           // of HTTP; 0: there was none
	problem string        // why it does not count as taken, in words for whoever owns the webhook; empty: it does
	detail  error         // more of that, for the operator's eyes only
	after   time.Duration // how long the receiver wants to be left alone; 0: it did not say
	took    time.Duration
}

// gone says that the receiver wants no more calls.
func (a answer) gone() bool { return a.status == http.StatusGone }

// choosy says that the receiver works, and does not like this event.
func (a answer) choosy() bool {
	return a.status/100 == 4 && a.status != http.StatusRequestTimeout && a.status != http.StatusTooManyRequests
}

// newClient makes the client for all receivers. It goes by no proxy, which would resolve names out of reach of dial, and
// follows no redirect: the receiver answers for itself only. It speaks HTTP/1.1, where a call that is given up takes its
// connection with it, and no other call.
func newClient(dial func(context.Context, string, string) (net.Conn, error), roots *x509.CertPool) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext: dial, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			DisableCompression: true, MaxResponseHeaderBytes: headerSize,
			MaxIdleConns: 256, MaxIdleConnsPerHost: MaxInFlight, IdleConnTimeout: 30 * time.Second,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// send makes one call.
func (h *Webhooks) send(ctx context.Context, w store.Webhook, id string, body []byte) answer {
	begun := time.Now()
	ctx, cancel := context.WithTimeout(ctx, h.schedule.answer)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.URL, bytes.NewReader(body))
	if err != nil {
		return answer{problem: "its URL is none", detail: errors.New("parse URL")} // the error has the URL
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "stspub")
	req.Header.Set("Webhook-Id", id)
	req.Header.Set("Webhook-Timestamp", strconv.FormatInt(begun.Unix(), 10))
	req.Header.Set("Webhook-Signature", sign(w, id, begun, body))
	resp, err := h.client.Do(req)
	if err != nil {
		return unanswered(err, time.Since(begun))
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, answerSize) // what it says is of no interest, nor that it cannot be read
	return answered(resp, time.Since(begun))
}

// unanswered puts into words why there was no answer. Who may choose the address is not to learn from them who listens
// where: whether nobody does, or nobody may, or there is no such name, is all one.
func unanswered(err error, took time.Duration) answer {
	a := answer{problem: "no connection", detail: plain(err), took: took}
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var record tls.RecordHeaderError
	var alert tls.AlertError
	switch {
	case errors.As(err, &unknown):
		a.problem = "its certificate is of an authority that is not known here"
	case errors.As(err, &name):
		a.problem = "its certificate is for another host"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		a.problem = "its certificate has expired, or is not valid yet"
	case errors.As(err, &invalid):
		a.problem = "its certificate is not valid"
	case errors.As(err, &record), errors.As(err, &alert):
		a.problem = "it does not speak TLS as we do"
	}
	return a
}

// answered puts into words what was answered.
func answered(resp *http.Response, took time.Duration) answer {
	a := answer{status: resp.StatusCode, after: retryAfter(resp), took: took}
	said := fmt.Sprintf("it answered %d %s", a.status, http.StatusText(a.status))
	switch {
	case a.status/100 == 2:
	case a.status/100 == 3:
		a.problem = said + ": redirects are not followed, so put the URL that it leads to"
	case a.gone():
		a.problem = said + ": it wants no more events"
	default:
		a.problem = said
	}
	return a
}

// retryAfter is what an answer says of when to come again. RFC 9110, Section 10.2.3.
func retryAfter(resp *http.Response) time.Duration {
	if resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode != http.StatusServiceUnavailable {
		return 0
	}
	text := resp.Header.Get("Retry-After")
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(time.Until(at), 0)
	}
	return 0
}

// plain is an error of the client without the URL, which may hold a secret.
func plain(err error) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		return wrapped.Err
	}
	return err
}
