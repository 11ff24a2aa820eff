package main

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

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
