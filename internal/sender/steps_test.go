package sender_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/sender"
)

// stepOf returns the step of an error from FetchPolicy or ProbeMX.
func stepOf(t *testing.T, err error) *sender.StepError {
	t.Helper()
	var step *sender.StepError
	if !errors.As(err, &step) {
		t.Fatalf("error is %v, want a *StepError", err)
	}
	return step
}

func TestFetchPolicy(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			if protocol == "HTTP/1.1" {
				w.https.NextProtos = []string{"http/1.1"}
			}
			f, err := w.start(t).FetchPolicy(t.Context(), domain)
			if err != nil {
				t.Fatal(err)
			}
			if string(f.Body) != goodPolicy || f.Status != 200 || f.Header.Get("Cache-Control") != "no-store" || f.Certificate == nil || f.Took <= 0 {
				t.Errorf("FetchPolicy = %+v, want the policy", f)
			}
			if want := fmt.Sprintf("127.0.0.1:%d", w.client.HTTPSPort); f.Addr != want {
				t.Errorf("FetchPolicy reached %s, want %s", f.Addr, want)
			}
		})
	}
}

// A sender goes on to the next address only where it got no connection.
func TestFetchPolicyTriesAddresses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.set(policyHost, "A", policyHost+". 60 IN A 127.0.0.9", policyHost+". 60 IN A 127.0.0.1")
	f, err := w.start(t).FetchPolicy(t.Context(), domain)
	if err != nil || !strings.HasPrefix(f.Addr, "127.0.0.1:") {
		t.Errorf("FetchPolicy = from %q, %v, want the second address", f.Addr, err)
	}

	w = newWorld(t)
	w.zone = append(w.zone, policyHost+". 60 IN A 127.0.0.2")
	asked := false
	w.handler = http.NotFound
	w.second = func(http.ResponseWriter, *http.Request) { asked = true }
	_, err = w.start(t).FetchPolicy(t.Context(), domain)
	if step := stepOf(t, err); step.Step != sender.StepStatus || asked {
		t.Errorf("FetchPolicy with 404 from the first address = %v; second one asked: %v", err, asked)
	}
}

func TestFetchPolicyFollowsNoRedirect(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var requests []string
	w.handler = func(rw http.ResponseWriter, r *http.Request) {
		requests = append(requests, r.URL.Path)
		http.Redirect(rw, r, "/.well-known/mta-sts.txt?again", http.StatusMovedPermanently)
	}
	f, err := w.start(t).FetchPolicy(t.Context(), domain)
	if step := stepOf(t, err); step.Step != sender.StepStatus || f.Status != 301 || len(requests) != 1 {
		t.Errorf("FetchPolicy = status %d, %v after requests %q, want one request and a status error", f.Status, err, requests)
	}
}

func TestFetchPolicyAtErrors(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name   string
		change func(t *testing.T, w *world)
		step   sender.Step
		want   string
	}{
		{"expired", func(t *testing.T, w *world) { w.https = serving(w.ca.issue(t, -time.Hour, policyHost)) }, sender.StepCertificate, "certificate has expired"},
		{"alert", func(_ *testing.T, w *world) { w.https = serving(nil) }, sender.StepTLS, "unrecognized name"},
		{"status", func(_ *testing.T, w *world) { w.handler = http.NotFound }, sender.StepStatus, "status 404"},
		{"length", func(_ *testing.T, w *world) { w.policy = strings.Repeat("x", 64<<10+1) }, sender.StepLength, "longer than 64 KiB"},
		{"half an answer", func(_ *testing.T, w *world) {
			w.handler = func(rw http.ResponseWriter, _ *http.Request) {
				rw.Header().Set("Content-Length", "100")
				fmt.Fprint(rw, "version: STSv1\n")
			}
		}, sender.StepHTTP, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			c.change(t, w)
			client := w.start(t)
			addr := fmt.Sprintf("127.0.0.1:%d", client.HTTPSPort)
			f, err := client.FetchPolicyAt(t.Context(), domain, addr)
			step := stepOf(t, err)
			prefix := fmt.Sprintf("fetch policy from %q at %s: ", policyHost, addr)
			if step.Step != c.step || !strings.HasPrefix(err.Error(), prefix) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("FetchPolicyAt = %v (step %s), want step %s and %q", err, step.Step, c.step, prefix+"…"+c.want)
			}
			if c.step == sender.StepCertificate && f.Certificate == nil {
				t.Error("the bad certificate is not returned")
			}
			if len(f.Body) > 64<<10 {
				t.Errorf("body has %d bytes", len(f.Body))
			}
		})
	}
}

func TestFetchPolicyAtLimit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.policy = strings.Repeat("x", 64<<10)
	client := w.start(t)
	f, err := client.FetchPolicyAt(t.Context(), domain, fmt.Sprintf("127.0.0.1:%d", client.HTTPSPort))
	if err != nil || len(f.Body) != 64<<10 {
		t.Errorf("FetchPolicyAt of 64 KiB = %d bytes, %v, want all of them", len(f.Body), err)
	}
}

// A server that accepts and says nothing must not outlive the context.
func TestSilentServers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	silent := listen(t, "127.0.0.7:0")
	accepted := make(chan struct{}, 2)
	go func() {
		for {
			conn, err := silent.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			accepted <- struct{}{}
		}
	}()
	w.zone = append(w.zone, "silent.mail.test. 60 IN A 127.0.0.7")
	client := w.start(t)
	client.SMTPPort = portOf(t, silent.Addr().String())

	for _, do := range []func(context.Context) error{
		func(ctx context.Context) error {
			_, err := client.FetchPolicyAt(ctx, domain, silent.Addr().String())
			return err
		},
		func(ctx context.Context) error {
			_, err := client.ProbeMX(ctx, "silent.mail.test", policygen.Policy{})
			return err
		},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-accepted; cancel() }()
		if err := do(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("error is %v, want context canceled", err)
		}
	}
}

func TestProbeMX(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	client := w.start(t)
	cases := []struct {
		host            string
		mx              []string
		covered, listed bool
	}{
		{"mx1.mail.test", []string{"mx1.mail.test"}, true, true},
		{"mx1.mail.test", []string{"mx2.mail.test"}, false, false},
		{"a.pool.test", []string{"*.pool.test"}, true, true},
		{"a.pool.test", []string{"a.pool.test"}, true, true},  // the certificate's wildcard covers the policy's host
		{"a.pool.test", []string{"b.pool.test"}, false, true}, // so Postfix would deliver, the others not
		{"a.pool.test", []string{"*.b.pool.test"}, false, false},
		{"a.pool.test", nil, false, false},
	}
	for _, c := range cases {
		p, err := client.ProbeMX(t.Context(), c.host, policygen.Policy{MX: c.mx})
		if err != nil {
			t.Errorf("ProbeMX(%q): %v", c.host, err)
			continue
		}
		if p.Covered != c.covered || p.Listed != c.listed || !p.STARTTLS || p.TLSVersion != "TLS 1.3" || p.Certificate == nil {
			t.Errorf("ProbeMX(%q) with policy %q = %+v, want covered %v, listed %v", c.host, c.mx, p, c.covered, c.listed)
		}
	}
	for _, c := range cases {
		policy := policygen.Policy{Mode: policygen.Enforce, MX: c.mx}
		p, err := client.ProbeMX(t.Context(), c.host, policy)
		finding, delivers := sender.Delivers(policy, c.host, p, err)
		if delivers != (err == nil && p.Covered) || delivers && !p.Listed || delivers == (finding.Code == "mx-not-covered") {
			t.Errorf("Delivers(%q, %q) = %+v, %t; it is covered %t, listed %t", c.mx, c.host, finding, delivers, p.Covered, p.Listed)
		}
	}
	if finding, delivers := sender.Delivers(policygen.Policy{MX: []string{"a.test"}}, "a.test", sender.Probed{}, nil); delivers {
		t.Errorf("Delivers of what was not probed = %+v, %t", finding, delivers)
	}
	w.set("mx1.mail.test", "A")
	_, err := client.ProbeMX(t.Context(), "nowhere.mail.test", policygen.Policy{})
	if step := stepOf(t, err); step.Step != sender.StepAddress || err.Error() != `probe MX "nowhere.mail.test": the name does not exist` {
		t.Errorf("ProbeMX of a missing host = %v", err)
	}
}

// What is said to a mail server, and how its refusals are told apart, line by line.
func TestProbeMXDialogue(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name   string
		script []string // lines "C: what we say" and "S: what we hear"
		step   sender.Step
	}{
		{"not welcome", []string{"S: 554 go away"}, sender.StepSMTP},
		{"no STARTTLS", []string{"S: 220 hi", "C: EHLO probe.test", "S: 250-mail.test", "S: 250 SIZE 1000", "C: QUIT", "S: 221 bye"}, sender.StepSTARTTLS},
		{"STARTTLS refused", []string{"S: 220 hi", "C: EHLO probe.test", "S: 250-mail.test", "S: 250 STARTTLS", "C: STARTTLS", "S: 454 not now", "C: QUIT", "S: 221 bye"}, sender.StepSTARTTLS},
		{"not TLS", []string{"S: 220 hi", "C: EHLO probe.test", "S: 250-mail.test", "S: 250 STARTTLS", "C: STARTTLS", "S: 220 go", "S: 220 and on in clear"}, sender.StepTLS},
		{"no end", []string{"S: 220-" + strings.Repeat("x", 2<<20)}, sender.StepSMTP},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := listen(t, "127.0.0.1:0")
			heard := make(chan error, 1)
			go func() { heard <- play(l, c.script) }()
			w := newWorld(t)
			client := w.start(t)
			client.SMTPPort, client.HELO = portOf(t, l.Addr().String()), "probe.test"
			_, err := client.ProbeMX(t.Context(), "mx1.mail.test", policygen.Policy{})
			if step := stepOf(t, err); step.Step != c.step {
				t.Errorf("ProbeMX = %v (step %s), want step %s", err, step.Step, c.step)
			}
			if err := <-heard; err != nil {
				t.Error(err)
			}
		})
	}
}

// play is the server's side of a dialogue.
func play(l net.Listener, script []string) error {
	conn, err := l.Accept()
	if err != nil {
		return err
	}
	defer conn.Close()
	text := textproto.NewConn(conn)
	for _, line := range script {
		want, ours := strings.CutPrefix(line, "C: ")
		if !ours {
			_ = text.PrintfLine("%s", strings.TrimPrefix(line, "S: ")) // whoever has heard enough may be gone
			continue
		}
		if got, err := text.ReadLine(); err != nil || got != want {
			return fmt.Errorf("client said %q, %w, want %q", got, err, want)
		}
	}
	return nil
}
