package daemon

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/lab"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

// TestCNAMEOfAStrangerOrdersNothing: who points a name at us, and comes with it in every way there is, has us neither order
// for it nor ask DNS about it.
func TestCNAMEOfAStrangerOrdersNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const stranger = "mta-sts.stranger.test"
	err := w.dns.AddZone(lab.Zone{Name: "stranger.test", Text: "mta-sts CNAME sts.provider.test.\n_mta-sts TXT \"v=STSv1; id=1;\"\n@ MX 10 mx1.provider.test.\n"})
	if err != nil {
		t.Fatal(err)
	}
	var said notes
	ca, err := lab.StartCA(context.Background(), lab.CAOptions{
		DNS: w.dns.Addr, HTTPPort: 8080, TLSPort: 8443, Log: slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ca.Close() })
	w.file("ca.pem", string(ca.RootPEM)+string(ca.DirectoryCAPEM))
	w.file("stspub.toml", w.config(w.ca.DirectoryURL, ca.DirectoryURL))
	r := w.start(w.path("stspub.toml"))
	r.live(time.Time{})
	const order = "Added order "
	until(t, "the orders of our own names", func() error {
		if n := said.count(order); n != 2 { // the customer's and hostname
			return fmt.Errorf("%d orders", n)
		}
		return nil
	})

	for range 3 {
		for _, protocols := range [][]string{nil, {"h2"}, {"acme-tls/1"}} {
			conn, err := tls.Dial("tcp", w.ip+":8443", &tls.Config{ServerName: stranger, NextProtos: protocols, InsecureSkipVerify: true})
			if err == nil {
				conn.Close()
				t.Errorf("a handshake for %s with %q succeeds", stranger, protocols)
			}
		}
		for _, path := range []string{"/.well-known/mta-sts.txt", "/.well-known/acme-challenge/x", "/"} {
			if status := w.plain(t, stranger, path); status != http.StatusNotFound {
				t.Errorf("http://%s%s = %d, want 404", stranger, path, status)
			}
		}
	}
	begun := time.Now()
	if err := r.admin.Retry(context.Background(), zoned); err != nil {
		t.Fatal(err)
	}
	r.live(begun) // time enough for whatever was begun
	if n := said.count(order); n != 2 {
		t.Errorf("%d orders after a stranger came, want those before it", n)
	}
	for _, kind := range []string{"A", "AAAA", "CAA", "CNAME"} {
		if n := w.dns.Queries(stranger, kind); n > 0 {
			t.Errorf("DNS was asked %d times for %s of a stranger's name", n, kind)
		}
	}
	r.stop()
}

// plain asks on port 80 under a name, and returns the status.
func (w *world) plain(t *testing.T, host, path string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+w.ip+":8080"+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	resp, err := new(http.Transport).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode
}

// TestPolicyIsNotMadeOfMX: what a domain's MX records say, by a customer or by who poisons his DNS, is told to the operator.
// It does not change the policy, nor its id, nor by a restart.
func TestPolicyIsNotMadeOfMX(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.start(w.path("stspub.toml"))
	r.live(time.Time{})
	status := func() publish.Status {
		t.Helper()
		s, err := r.admin.Domain(context.Background(), zoned)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	before := status()
	for _, mx := range [][]string{{"10 mx.evil.test."}, {"10 mx.evil.test.", "20 mx1.provider.test."}, nil} {
		if err := w.dns.Set(zoned, "MX", mx...); err != nil {
			t.Fatal(err)
		}
		asked := w.dns.Queries(zoned, "MX")
		until(t, "look at the MX", func() error {
			if err := r.admin.Retry(context.Background(), zoned); err != nil {
				return err
			}
			if w.dns.Queries(zoned, "MX") <= asked+1 {
				return fmt.Errorf("nobody looks")
			}
			return nil
		})
		if len(mx) > 0 {
			until(t, "finding", func() error {
				if s := status(); !slices.ContainsFunc(s.Findings, func(f store.Finding) bool { return strings.Contains(f.Text, "mx.evil.test") }) {
					return fmt.Errorf("%+v", s.Findings)
				}
				return nil
			})
		}
		w.serves()
		if s := status(); s.ID != before.ID || len(s.History) != len(before.History) {
			t.Errorf("with MX %q the id is %s, want still %s; history %+v", mx, s.ID, before.ID, s.History)
		}
		r.stop()
		r = w.start(w.path("stspub.toml"))
		w.serves()
	}
	if got := w.dns.Values("_mta-sts."+zoned, "TXT"); len(got) != 1 || !strings.Contains(got[0], before.ID) {
		t.Errorf("TXT %q, want the one with id %s", got, before.ID)
	}
	r.stop()
}

// TestBackupHoldsNoKey looks for the private keys in all files that a sealed server leaves, as whoever finds a backup of them
// would: they are nowhere, and without [store] key_file they are.
func TestBackupHoldsNoKey(t *testing.T) {
	t.Parallel()
	for name, sealed := range map[string]bool{"sealed": true, "open": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			var ring *store.Keyring
			if sealed {
				w.file("store.key", strings.Repeat("01", store.KeySize)+"\n")
				const url = `url = "sqlite:stspub.db"`
				w.file("stspub.toml", w.config(url, url+"\nkey_file = \"store.key\""))
				var err error
				if ring, err = store.NewKeyring(bytes.Repeat([]byte{1}, store.KeySize)); err != nil {
					t.Fatal(err)
				}
			}
			r := w.start(w.path("stspub.toml"))
			r.live(time.Time{})
			until(t, "certificates", func() error {
				if o, err := r.admin.Certificates(context.Background()); err != nil || o.Valid != 2 {
					return fmt.Errorf("%+v, %w", o, err)
				}
				return nil
			})
			running := w.files(t) // with the log of the database
			r.stop()
			secrets := w.secrets(t, ring)
			for state, files := range map[string]map[string][]byte{"running": running, "stopped": w.files(t)} {
				found := make(map[string]bool)
				for file, text := range files {
					for what, secret := range secrets {
						for _, form := range [][]byte{secret, []byte(hex.EncodeToString(secret)), []byte(base64.StdEncoding.EncodeToString(secret))} {
							if bytes.Contains(text, form) {
								found[what] = true
								if sealed {
									t.Errorf("%s: the key of %s is in %s", state, what, file)
								}
							}
						}
					}
				}
				if !sealed && len(found) != len(secrets) {
					t.Errorf("%s: the test finds the keys of %v alone, of %d", state, found, len(secrets))
				}
			}
		})
	}
}

// files reads what the server has written.
func (w *world) files(t *testing.T) map[string][]byte {
	t.Helper()
	entries, err := os.ReadDir(w.dir)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string][]byte)
	for _, e := range entries {
		if name := e.Name(); strings.HasPrefix(name, "stspub.db") {
			if all[name], err = os.ReadFile(w.path(name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return all
}

// secrets are the private keys in the store: of certificates, the account and session tickets.
func (w *world) secrets(t *testing.T, ring *store.Keyring) map[string][]byte {
	t.Helper()
	s, err := store.OpenSealedSQLite(t.Context(), w.path("stspub.db"), ring)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	all := make(map[string][]byte)
	scalar := func(what string, der []byte) {
		t.Helper()
		key, err := x509.ParsePKCS8PrivateKey(der)
		if err != nil {
			t.Fatal(err)
		}
		if all[what], err = key.(*ecdsa.PrivateKey).Bytes(); err != nil {
			t.Fatal(err)
		}
	}
	err = s.EachCertificate(t.Context(), func(c store.Certificate) error {
		scalar(c.Name, c.Key)
		return nil
	})
	if err != nil || len(all) != 2 {
		t.Fatalf("%d certificates, %v", len(all), err)
	}
	account, err := s.Value(t.Context(), "acme/account/lab")
	if err != nil {
		t.Fatal(err)
	}
	scalar("the account", account)
	text, err := s.Value(t.Context(), "tls/tickets")
	if err != nil {
		t.Fatal(err)
	}
	var tickets []json.RawMessage // each holds its key
	if err := json.Unmarshal(text, &tickets); err != nil || len(tickets) == 0 {
		t.Fatalf("%d keys of tickets, %v", len(tickets), err)
	}
	all["tickets"] = tickets[0]
	return all
}
