package dnsupdate

import (
	"errors"
	"net/http"

	"github.com/stspub/stspub/internal/config"
)

func newCloudflare(_ config.Account, _ *guard, _ http.RoundTripper) (backend, error) {
	return nil, errors.New("provider cloudflare: not there yet")
}
