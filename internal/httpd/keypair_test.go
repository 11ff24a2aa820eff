package httpd

import (
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Who renews the certificate of the admin listener replaces two files, one after the other, and tells nobody.
func TestKeyPairFollowsItsFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	stamp := time.Now().Add(-time.Hour)
	put := func(path, kind string, der []byte) {
		t.Helper()
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		stamp = stamp.Add(time.Second) // a file system may not tell two writes apart
		if err := os.Chtimes(path, stamp, stamp); err != nil {
			t.Fatal(err)
		}
	}
	ca := newTestCA(t, "old", "new")
	cert := func(name string) { put(certFile, "CERTIFICATE", ca.leafs[name].Certificate[0]) }
	key := func(name string) {
		der, err := x509.MarshalPKCS8PrivateKey(ca.leafs[name].PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		put(keyFile, "PRIVATE KEY", der)
	}
	var log logBuffer
	k := NewKeyPair(certFile, keyFile, slog.New(slog.NewTextHandler(&log, nil)))
	serves := func(want string) {
		t.Helper()
		pair, err := k.GetCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(pair.Certificate[0])
		if err != nil || leaf.DNSNames[0] != want {
			t.Errorf("serves %v (%v), want %q", leaf.DNSNames, err, want)
		}
	}
	if _, err := k.GetCertificate(nil); err == nil || !strings.Contains(err.Error(), certFile) {
		t.Errorf("without files: %v, want an error that names %s", err, certFile)
	}
	cert("old")
	key("old")
	serves("old")
	cert("new")
	serves("old") // as the key does not belong to it
	if !strings.Contains(log.String(), "the last one is served") {
		t.Errorf("the log has\n%s\nwant a word of it", log.String())
	}
	key("new")
	serves("new")
	if err := os.Remove(keyFile); err != nil {
		t.Fatal(err)
	}
	serves("new")
}
