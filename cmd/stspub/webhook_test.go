package main

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stspub/stspub/internal/store"
	"github.com/stspub/stspub/internal/webhook"
)

func TestWebhookCommands(t *testing.T) {
	admin := listen(t, &keeper{})
	receiver := httptest.NewUnstartedServer(http.NotFoundHandler())
	receiver.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo) // that its certificate is refused
	receiver.StartTLS()
	t.Cleanup(receiver.Close)
	secret := regexp.MustCompile(`^whsec_[A-Za-z0-9+/]{43}=\n$`)
	run := func(args string, wantCode int, want string) string {
		t.Helper()
		out, stderr, code := stspub(t, append(strings.Fields(args), "--admin", admin)...)
		if code != wantCode || want != "" && stamped.ReplaceAllString(out+stderr, "WHEN") != want {
			t.Errorf("stspub %s: exit code %d, %q, %q, want %d, %q", args, code, out, stderr, wantCode, want)
		}
		return out
	}
	put := "webhook put panel --url " + receiver.URL + "/hooks"
	first := run(put, 0, "")
	if !secret.MatchString(first) {
		t.Errorf("%s: %q, want a secret", put, first)
	}
	run(put, 0, "webhook panel is good, and keeps its secret\n")
	if again := run(put+" --rotate --kind domain.fault", 0, ""); !secret.MatchString(again) || again == first {
		t.Errorf("%s --rotate: %q, want another secret", put, again)
	}
	run("webhook list", 0, "WEBHOOK  STATE  LAST DELIVERY  LOST  URL"+strings.Repeat(" ", len(receiver.URL)+5)+"PROBLEM\n"+
		"panel    good   -              0     "+receiver.URL+"/hooks  \n")
	run("webhook show panel", 0, "webhook           panel\nurl               "+receiver.URL+"/hooks\nkinds             domain.fault\nstate             good\nold secret until  WHEN\n")
	if out := run("webhook test panel", 1, ""); !strings.HasSuffix(out, " ms: its certificate is of an authority that is not known here\n") {
		t.Errorf("webhook test: %q", out)
	}
	var tested webhook.Tested
	if out := run("webhook test panel --json", 1, ""); json.Unmarshal([]byte(out), &tested) != nil || tested.Taken || tested.ID == "" {
		t.Errorf("webhook test --json: %q", out)
	}
	run("webhook resume panel", 0, "webhook panel goes on\n")
	if names, _, _ := stspub(t, "__complete", "webhook", "show", "--admin", admin, "p"); names != "panel\n:4\n" {
		t.Errorf("completion of webhooks: %q", names)
	}
	if kinds, _, _ := stspub(t, "__complete", "webhook", "put", "x", "--admin", admin, "--kind", ""); !strings.Contains(kinds, "certificate.failing\ncertificate.issued\n") {
		t.Errorf("completion of kinds: %q", kinds)
	}
	run("webhook remove panel", 0, "webhook panel is removed\n")
	run("webhook remove panel", 1, "stspub: remove webhook: webhook \"panel\" is not here\n")
	run("webhook list --tenant nobody", 1, "stspub: list webhooks: there is no tenant \"nobody\"\n")
}

// drive has the receiver of docs/api.md answer what is on standard input, and prints the status of each answer.
const drive = `package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
)

func init() {
	decoder := json.NewDecoder(os.Stdin)
	for {
		var call struct {
			Header http.Header
			Body   string
		}
		if decoder.Decode(&call) != nil {
			os.Exit(0)
		}
		r, w := httptest.NewRequest("POST", "/hooks", strings.NewReader(call.Body)), httptest.NewRecorder()
		r.Header = call.Header
		receive(w, r)
		fmt.Println(w.Code)
	}
}
`

// TestReceiverInTheDocuments runs the receiver of docs/api.md: it takes what stspub sends, and nothing else.
func TestReceiverInTheDocuments(t *testing.T) {
	type call struct {
		Header http.Header
		Body   string
	}
	calls := make(chan call, 1)
	receiver := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		calls <- call{r.Header.Clone(), string(body)}
	}))
	t.Cleanup(receiver.Close)
	roots := x509.NewCertPool()
	roots.AddCert(receiver.Certificate())
	st, err := store.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "stspub.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	hooks := webhook.New(webhook.Config{Store: st, Dial: new(net.Dialer).DialContext, Roots: roots, Log: slog.New(slog.DiscardHandler)})
	info, _, err := hooks.Put(t.Context(), "", "x", webhook.Spec{URL: receiver.URL}, "", false)
	if err != nil {
		t.Fatal(err)
	}
	if tested, err := hooks.Test(t.Context(), "", "x"); err != nil || !tested.Taken {
		t.Fatalf("test = %+v, %v", tested, err)
	}
	good := <-calls

	change := func(key, value string) call {
		c := call{good.Header.Clone(), good.Body}
		c.Header.Set(key, value)
		return c
	}
	var input bytes.Buffer
	encoder := json.NewEncoder(&input)
	for _, c := range []call{
		good,
		{good.Header, good.Body + " "},
		change("Webhook-Id", "msg_other"),
		change("Webhook-Timestamp", "1700000000"),
		change("Webhook-Signature", "v1,"+strings.Repeat("A", 43)+"="),
		change("Webhook-Signature", "v1,"+strings.Repeat("A", 43)+"= "+good.Header.Get("Webhook-Signature")),
	} {
		if err := encoder.Encode(c); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	programs := blocks(t, "../../docs/api.md", "go")
	if len(programs) != 1 {
		t.Fatalf("docs/api.md has %d programs in Go, want the receiver", len(programs))
	}
	for name, text := range map[string]string{"main.go": programs[0], "drive.go": drive, "go.mod": "module receiver\n\ngo 1.26\n"} {
		write(t, filepath.Join(dir, name), text)
	}
	run := exec.CommandContext(t.Context(), "go", "run", ".")
	run.Dir, run.Stdin = dir, &input
	run.Env = append(os.Environ(), "WEBHOOK_SECRET="+info.Secret)
	var said bytes.Buffer
	run.Stderr = &said
	out, err := run.Output()
	if want := "204\n401\n401\n401\n401\n204\n"; err != nil || string(out) != want {
		t.Errorf("the receiver answers %q, %v, want %q\n%s", out, err, want, &said)
	}
}
