package daemon

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"math/big"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/certs"
	"github.com/stspub/stspub/internal/lab"
	"github.com/stspub/stspub/internal/store"
)

// When Run returns nothing of it goes on, also if name servers did not answer while it worked.
func TestStopLeavesNothing(t *testing.T) { // not parallel: it looks at the goroutines of all
	w := newWorld(t)
	r := w.start(w.path("stspub.toml"))
	r.live(time.Time{})
	r.fault("alias zone", "")
	w.dns.SetFault("alias.test", lab.FaultSilent)
	w.dns.SetFault(zoned, lab.FaultSilent)
	w.file("stspub.toml", w.config(`ttl = "60s"`, `ttl = "61s"`)) // so the alias zone is probed again
	probed := w.dns.Queries("_stspub-probe.alias.test", "")
	r.reload()
	until(t, "probe under way", func() error {
		if w.dns.Queries("_stspub-probe.alias.test", "") == probed {
			return fmt.Errorf("the zone is not asked for")
		}
		return nil
	})
	r.stop()
	st, err := store.OpenSQLite(t.Context(), w.path("stspub.db"))
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	until(t, "goroutines gone", func() error {
		var all bytes.Buffer
		if err := pprof.Lookup("goroutine").WriteTo(&all, 1); err != nil {
			return err
		}
		for _, frame := range []string{
			"daemon.(*daemon)", "internal/publish.", "internal/certs.", "internal/httpd.", "internal/sender.", "internal/dnsupdate.", "internal/store.",
		} {
			if strings.Contains(all.String(), frame) {
				return fmt.Errorf("%s… is still there:\n%s", frame, all.String())
			}
		}
		return nil
	})
	for _, addr := range []string{w.ip + ":8443", w.ip + ":8080"} {
		if err := silent(addr); err != nil {
			t.Error(err)
		}
	}
}

// The service's own host name may be the policy host of a domain; when that leaves, the start page stays.
func TestOwnCertificateStays(t *testing.T) {
	t.Parallel()
	const own, other = "mta-sts.provider.test", "mta-sts.zoned.test"
	st, err := store.OpenSQLite(t.Context(), t.TempDir()+"/stspub.db")
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	for _, name := range []string{own, other} {
		if err := st.SaveCertificate(t.Context(), selfSigned(t, name)); err != nil {
			t.Fatal(err)
		}
	}
	keeper := certs.New(certs.Config{Store: st, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err := keeper.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	v := certView{keeper, own}
	for _, name := range []string{own, other} {
		v.Want(name, "", false)
		v.Unwant(name)
		if next := keeper.Status(name).NextTry; next.IsZero() != (name == other) {
			t.Errorf("after Unwant %s is renewed at %v", name, next)
		}
		if err := v.Drop(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		cert, err := keeper.GetCertificate(&tls.ClientHelloInfo{
			ServerName: name, CipherSuites: []uint16{tls.TLS_AES_128_GCM_SHA256}, SupportedVersions: []uint16{tls.VersionTLS13},
			SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256}, SupportedCurves: []tls.CurveID{tls.CurveP256},
		})
		if err != nil || (cert == nil) != (name == other) {
			t.Errorf("after Drop the certificate of %s is %v, %v", name, cert != nil, err)
		}
	}
	var left []string
	err = st.EachCertificate(context.Background(), func(c store.Certificate) error {
		left = append(left, c.Name)
		return nil
	})
	if err != nil || len(left) != 1 || left[0] != own {
		t.Errorf("in the store are the certificates of %q, %v, want %q alone", left, err, own)
	}
}

// selfSigned is a certificate as the store has it.
func selfSigned(t *testing.T, name string) store.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(90 * 24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return store.Certificate{Name: name, Key: raw, Chain: [][]byte{der}, NotBefore: template.NotBefore, NotAfter: template.NotAfter}
}
