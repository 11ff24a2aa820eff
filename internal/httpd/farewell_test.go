package httpd

import (
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// TestFarewell: who said goodbye hears nothing more, and everybody else hears all.
func TestFarewell(t *testing.T) {
	t.Parallel()
	w := newPublic(t, nil)
	w.Public.secure.http.IdleTimeout = 200 * time.Millisecond
	w.run(t)
	const request = "GET " + policyPath + " HTTP/1.1\r\nHost: mta-sts.a.example\r\n\r\n"
	for _, tt := range []struct {
		what    string
		version uint16
		pieces  []string // of the request, a record each
		leaves  bool     // says close_notify after the answer
		heard   int      // bytes after the answer
	}{
		{"leaves", tls.VersionTLS13, []string{request}, true, 0},
		{"stays", tls.VersionTLS13, []string{request}, false, alertSize},
		// The last record looks like an alert until it is decrypted, and the answer comes all the same.
		{"ends its request in a short record", tls.VersionTLS13, []string{request[:len(request)-2], request[len(request)-2:]}, false, alertSize},
		{"leaves in TLS 1.2", tls.VersionTLS12, []string{request}, true, 31},
	} {
		tcp, err := net.Dial("tcp", w.secure)
		if err != nil {
			t.Fatal(err)
		}
		conn := tls.Client(tcp, &tls.Config{
			ServerName: "mta-sts.a.example", RootCAs: w.ca.roots, MinVersion: tt.version, MaxVersion: tt.version,
			CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
		})
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		for _, piece := range tt.pieces {
			if _, err := io.WriteString(conn, piece); err != nil {
				t.Fatal(err)
			}
		}
		answer := ""
		for buf := make([]byte, 1024); !strings.HasSuffix(answer, textA); {
			n, err := conn.Read(buf)
			if answer += string(buf[:n]); err != nil {
				t.Fatalf("%s: answer %q, %v", tt.what, answer, err)
			}
		}
		if tt.leaves {
			if err := conn.CloseWrite(); err != nil {
				t.Fatal(err)
			}
		}
		rest, err := io.ReadAll(tcp)
		if err != nil || len(rest) != tt.heard {
			t.Errorf("a client that %s hears %d bytes after the answer, %v, want %d", tt.what, len(rest), err, tt.heard)
		}
		_ = tcp.Close()
	}
}
