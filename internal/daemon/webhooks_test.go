package daemon

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/webhook"
)

// TestWebhooks has a receiver hear of a publication as it goes on, over a restart; on a private address, which the operator has to
// allow.
func TestWebhooks(t *testing.T) {
	w := newWorld(t)
	var mu sync.Mutex // guards steps and secret
	var steps []string
	secret := ""
	receiver := httptest.NewTLSServer(http.HandlerFunc(func(answer http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		verifier, err := standardwebhooks.NewWebhook(secret)
		if err == nil {
			err = verifier.Verify(body, r.Header)
		}
		var m webhook.Message
		if err == nil {
			err = json.Unmarshal(body, &m)
		}
		if err != nil {
			t.Errorf("call %s: %v", body, err)
		}
		var after struct{ Step string }
		if m.Type == "domain.step" && json.Unmarshal(m.Data.After, &after) == nil && m.Data.Name == zoned {
			steps = append(steps, after.Step)
		}
	}))
	t.Cleanup(receiver.Close)
	w.file("ca.pem", string(w.ca.RootPEM)+string(w.ca.DirectoryCAPEM)+
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: receiver.Certificate().Raw})))
	w.file("open.toml", w.config("[check]\n", "[check]\nallow_private = [\"127.0.0.1\"]\n"))

	r := w.start(w.path("stspub.toml"))
	info, err := r.admin.PutWebhook(t.Context(), "ops", webhook.Spec{URL: receiver.URL}, false)
	if err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	secret = info.Secret
	mu.Unlock()
	if got, err := r.admin.TestWebhook(t.Context(), "ops"); err != nil || got.Taken || got.Problem != "no connection" {
		t.Errorf("test on a private address = %+v, %v, want no connection", got, err)
	}
	r.stop()
	r = w.start(w.path("open.toml"))
	if got, err := r.admin.TestWebhook(t.Context(), "ops"); err != nil || !got.Taken {
		t.Errorf("test on an address that is allowed = %+v, %v", got, err)
	}
	until(t, "told of "+zoned, func() error {
		mu.Lock()
		defer mu.Unlock()
		if !slices.Contains(steps, publish.StepLive) {
			return fmt.Errorf("steps %q", steps)
		}
		return nil
	})
	r.stop()
}
