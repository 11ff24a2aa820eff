package httpd

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// KeyPair serves a certificate and its key from two PEM files, and reads them again when they have changed: whoever renews
// them need not tell the server. While they cannot be read, what was read last is served.
type KeyPair struct {
	certFile, keyFile string
	log               *slog.Logger

	mu   sync.Mutex // guards the fields below
	pair *tls.Certificate
	read [2]time.Time // when the files were changed that pair is of, or that were no pair
}

// NewKeyPair reads nothing yet.
func NewKeyPair(certFile, keyFile string, log *slog.Logger) *KeyPair {
	return &KeyPair{certFile: certFile, keyFile: keyFile, log: log}
}

// GetCertificate is for [tls.Config].
func (k *KeyPair) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	err := k.refresh()
	if k.pair == nil {
		return nil, fmt.Errorf("read the certificate of the admin listener: %w", err)
	}
	if err != nil {
		k.log.Warn("certificate of the admin listener not read; the last one is served", "err", err)
	}
	return k.pair, nil
}

// refresh reads the files if they have changed. k.mu is held.
func (k *KeyPair) refresh() error {
	var changed [2]time.Time
	for i, file := range []string{k.certFile, k.keyFile} {
		info, err := os.Stat(file)
		if err != nil {
			return err
		}
		changed[i] = info.ModTime()
	}
	if k.pair != nil && changed == k.read {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(k.certFile, k.keyFile)
	if err != nil {
		return err // perhaps one of them is not yet changed
	}
	k.pair, k.read = &pair, changed
	return nil
}
