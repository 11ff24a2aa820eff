package httpd

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stspub/stspub/internal/store"
)

// A webhook over the API: its secret is shown once, its ETag keeps changes apart, and there is a limit.
func TestWebhookRoutes(t *testing.T) {
	t.Parallel()
	w, _ := runAPI(t, unixAddr(t))
	w.tenant(t, "acme")
	const spec = `{"url":"https://panel.example.net/hooks?k=1"}`
	first := w.exchange(t, exchange{"PUT /v1/webhooks/panel?tenant=acme", "", spec, 201, `"secret":"whsec_`})
	for _, x := range []exchange{
		{"PUT /v1/webhooks/panel?tenant=acme", "", spec, 200, `"state":"good"`},
		{"GET /v1/webhooks/panel?tenant=acme", "", "", 200, `"url":"https://panel.example.net/hooks?k=1","kinds":["domain.step",`},
		{"GET /v1/webhooks?tenant=acme", "", "", 200, `"name":"panel"`},
		{"GET /v1/webhooks", "", "", 200, "[]"},
		{"GET /v1/webhooks/panel", "", "", 404, `webhook \"panel\" is not here`},
		{"GET /v1/webhooks?tenant=nobody", "", "", 404, `there is no tenant \"nobody\"`},
		{"PUT /v1/webhooks/panel?tenant=acme", "", `{"url":"http://panel.example.net/"}`, 400, `webhook \"panel\": url: has to begin with https:// and a host`},
		{"PUT /v1/webhooks/panel?tenant=acme", "", `{"url":"https://a.example/","kinds":["domain.stop"]}`, 400, `there is no kind \"domain.stop\"`},
		{"PUT /v1/webhooks/Panel?tenant=acme", "", spec, 400, `\"Panel\" is no name`},
		{"PUT /v1/webhooks/panel?tenant=acme&rotate=true", "", spec, 200, `"old_secret_until":"`},
		{"POST /v1/webhooks/panel/test?tenant=acme", "", "", 200, `"taken":false,"problem":"no connection"`},
		{"POST /v1/webhooks/panel/resume?tenant=acme", "", "", 200, `"state":"good"`},
		{"POST /v1/webhooks/nowhere/test?tenant=acme", "", "", 404, "is not here"},
		{"POST /v1/webhooks/nowhere/resume?tenant=acme", "", "", 404, "is not here"},
		{"DELETE /v1/webhooks/panel?tenant=acme", "", "", 204, ""},
		{"DELETE /v1/webhooks/panel?tenant=acme", "", "", 404, "is not here"},
	} {
		got := w.exchange(t, x)
		if strings.Contains(got.body, "whsec_") && !strings.Contains(x.request, "rotate") {
			t.Errorf("%s shows a secret: %s", x.request, got.body)
		}
	}
	if !strings.Contains(first.body, `"name":"panel","tenant":"acme"`) {
		t.Errorf("added: %s", first.body)
	}
	etag := "If-Match: " + first.header.Get("ETag")
	w.exchange(t, exchange{"PUT /v1/webhooks/w0", etag, spec, 412, "was changed since it was read"})
	etag = "If-Match: " + w.exchange(t, exchange{"PUT /v1/webhooks/w0", "", spec, 201, ""}).header.Get("ETag")
	w.exchange(t, exchange{"PUT /v1/webhooks/w0?rotate=true", etag, spec, 200, ""})
	w.exchange(t, exchange{"PUT /v1/webhooks/w0", etag, spec, 412, "was changed since it was read"})
	w.exchange(t, exchange{"DELETE /v1/webhooks/w0", etag, "", 412, "was changed since it was read"})
	for i := 1; i < store.MaxWebhooks; i++ {
		w.exchange(t, exchange{fmt.Sprintf("PUT /v1/webhooks/w%d", i), "", spec, 201, ""})
	}
	w.exchange(t, exchange{"PUT /v1/webhooks/more", "", spec, 409, "there are 20 webhooks, and no more may be"})
}
