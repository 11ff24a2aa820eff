package certs

import (
	"strings"
	"testing"
)

// TestFraudulentAuthority: an authority that goes on for ever, leads elsewhere, or gives a certificate that is not for this
// name and key, gets nothing out of it: the order ends in time, and nothing is taken.
func TestFraudulentAuthority(t *testing.T) {
	t.Parallel()
	ca := newFraud(t)
	const ok = "HTTP/1.1 200 OK\r\nReplay-Nonce: n\r\nLocation: https://ca.test/poll\r\n"
	certificate := func(names ...string) string { return ok + "\r\n" + string(ca.leaf(ca.key.Public(), names...)) }
	for _, tt := range []struct {
		name, at, answer string
		then             int
		want             string // in the error of the order, or why the certificate is refused
	}{
		{"a directory without end", atDirectory, ok + "\r\n", thenOn, "read the answer of ca.test: "},
		{"a header without end", atDirectory, ok + "X: ", thenOn, "response headers exceeded 65536 bytes"},
		{"a directory that never ends", atDirectory, ok + "Content-Length: 9\r\n\r\n{", thenStall, "context deadline exceeded"},
		{"an order without end", atOrder, "HTTP/1.1 201 X\r\nReplay-Nonce: n\r\n\r\n", thenOn, "order"},
		{"a state without end", atPoll, ok + "\r\n", thenOn, "context deadline exceeded"},
		{"certificates without end", atCert, certificate(fuzzedHost), thenOn, "it is not the certificate's"},
		{"many certificates", atCert, ok + "\r\n" + strings.Repeat(string(ca.leaf(ca.key.Public(), fuzzedHost)), 100), thenClose, "too long"},
		{"a problem without end", atOrder, "HTTP/1.1 403 X\r\nContent-Type: application/problem+json\r\n\r\n{\"detail\":\"", thenOn, `{"detail":"`},

		{"a directory elsewhere", atDirectory, "HTTP/1.1 302 X\r\nLocation: http://169.254.169.254/latest/\r\n\r\n", thenClose, "answered 302 Found"},
		{"a directory elsewhere by TLS", atDirectory, "HTTP/1.1 301 X\r\nLocation: https://10.0.0.1/\r\n\r\n", thenClose, "answered 301 Moved Permanently"},
		{"an order elsewhere", atOrder, "HTTP/1.1 307 X\r\nReplay-Nonce: n\r\nLocation: https://10.0.0.1/\r\n\r\n", thenClose, "307"},
		{
			"addresses without TLS", atDirectory, ok + "\r\n" + strings.ReplaceAll(directoryText(), "https://ca.test", "http://10.0.0.1"), thenClose,
			`it names an address without TLS, "http://10.0.0.1/`,
		},
		{
			"an authorization without TLS", atOrder, "HTTP/1.1 201 X\r\nReplay-Nonce: n\r\n\r\n" + strings.ReplaceAll(orderText("pending"), "https://ca.test/authz", "http://10.0.0.1/x"),
			thenClose, `it names an address without TLS, "http://10.0.0.1/x"`,
		},

		{"a certificate for another name", atCert, certificate("other.test"), thenClose, "check name: "},
		{"a certificate for another key", atCert, certificate(fuzzedHost), thenClose, "it is not the certificate's"},
		{"no certificate", atCert, ok + "\r\n", thenClose, "chain is empty"},
		{"a certificate that is none", atCert, ok + "\r\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", thenClose, "read the certificate that came: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := cheat(t, ca, tt.at, []byte(tt.answer), tt.then)
			o.check(t)
			err := o.err
			if err == nil {
				_, err = newMemory().pack(o.cert)
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("it ends with %.300v after %v, want %q", err, o.took, tt.want)
			}
		})
	}
	if o := cheat(t, ca, "nowhere", nil, thenClose); o.err != nil || o.asked != nil {
		t.Errorf("an honest authority: %v, %v", o.err, o.asked)
	} else if _, err := newMemory().pack(o.cert); err != nil {
		t.Errorf("an honest authority: %v", err)
	}
}
