package httpd

import (
	"log"
	"log/slog"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// errorLog takes what http.Server says on its ErrorLog. A public port hears a scanner every second, so what only
// concerns one strange client goes to the debug level, and the rest where an operator sees it.
type errorLog struct {
	log *slog.Logger
	// handshakes counts failed TLS handshakes by kind; nil: it does not.
	handshakes *prometheus.CounterVec
}

func newErrorLog(l *slog.Logger, handshakes *prometheus.CounterVec) *log.Logger {
	return log.New(&errorLog{l, handshakes}, "", 0)
}

// Write takes one message. http.Server has no other way to tell of these events than their text.
func (e *errorLog) Write(p []byte) (int, error) {
	message := strings.TrimSpace(string(p))
	if rest, ok := strings.CutPrefix(message, "http: TLS handshake error from "); ok {
		addr, reason, _ := strings.Cut(rest, ": ")
		e.handshake(addr, reason)
		return len(p), nil
	}
	switch {
	case strings.HasPrefix(message, "http2: "):
		e.log.Debug("ended HTTP/2 connection", "err", message)
	case strings.HasPrefix(message, "http: panic serving "):
		e.log.Error("panicked while answering", "err", message)
	default:
		e.log.Warn("http server complained", "err", message)
	}
	return len(p), nil
}

// handshake takes why a TLS handshake failed.
func (e *errorLog) handshake(addr, reason string) {
	if e.handshakes != nil {
		e.handshakes.WithLabelValues(handshakeKind(reason)).Inc()
	}
	e.log.Debug("ended TLS handshake", "addr", addr, "err", reason)
}

// handshakeKinds are the values of the metric's label.
func handshakeKinds() []string {
	return []string{"unknown_name", "alert", "gone", "timeout", "unsupported", "not_tls", "other"}
}

// handshakeKind sorts the reason of a failed handshake. The texts are those of crypto/tls and net; TestHandshakeKinds
// makes real handshakes fail, and so notices when they change.
func handshakeKind(reason string) string {
	has := func(texts ...string) bool {
		for _, text := range texts {
			if strings.Contains(reason, text) {
				return true
			}
		}
		return false
	}
	switch {
	case has("no certificates configured"): // a name that we have no certificate for, or no name at all
		return "unknown_name"
	case has("remote error: "): // the client did not like us: an alert of its own
		return "alert"
	case has("EOF", "connection reset", "broken pipe"):
		return "gone"
	case has("i/o timeout", "deadline exceeded"):
		return "timeout"
	case has("unsupported", "no cipher suite", "no mutually supported"):
		return "unsupported"
	case has("HTTP request to an HTTPS", "not look like a TLS handshake"):
		return "not_tls"
	}
	return "other"
}
