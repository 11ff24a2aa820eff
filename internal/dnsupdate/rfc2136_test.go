package dnsupdate_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/dnsupdate"
	"github.com/stspub/stspub/internal/lab"
	"github.com/stspub/stspub/internal/lab/labtest"
)

const prefix2136 = `TXT "_mta-sts.example.org" in zone "example.org" by account "main" (rfc2136): `

// dnsServers runs a test on each real server.
func dnsServers(t *testing.T, test func(t *testing.T, s *labtest.DNSServer, p *place)) {
	t.Parallel()
	for _, start := range []func(testing.TB, ...lab.Zone) *labtest.DNSServer{
		labtest.StartBIND, labtest.StartKnot, labtest.StartPowerDNS,
	} {
		s := start(t, lab.Zone{Name: zone})
		t.Run(s.Program, func(t *testing.T) {
			test(t, s, dnsPlace(s))
		})
	}
}

// TestTSIG wants to know what is wrong with the key.
func TestTSIG(t *testing.T) {
	other := config.Secret(base64.StdEncoding.EncodeToString([]byte("another secret of another server")))
	const advice = "; compare key_name, key_algorithm and key with the server's, and the clocks"
	dnsServers(t, func(t *testing.T, s *labtest.DNSServer, p *place) {
		tests := map[string]struct {
			change func(*config.Account)
			want   string // %s is the server
		}{
			"secret":    {func(a *config.Account) { a.Key = other }, `server %s has another secret for the key "stspub"`},
			"name":      {func(a *config.Account) { a.KeyName = "nobody" }, `server %s does not know the key "nobody" with "hmac-sha256"`},
			"algorithm": {func(a *config.Account) { a.KeyAlgorithm = "hmac-sha512" }, `server %s does not know the key "stspub" with "hmac-sha512"`},
		}
		for name, tt := range tests {
			t.Run(name, func(t *testing.T) {
				q := *p
				tt.change(&q.config)
				err := q.open(t, dnsupdate.Options{}).Apply(t.Context(), change("_mta-sts."+zone, sts("now")))
				e := q.fails(t, err, dnsupdate.KindAuth)
				want := fmt.Sprintf(tt.want, s.Addr)
				if s.Program == "PowerDNS" { // says no more than NOTAUTH
					want = fmt.Sprintf("server %s does not take the signature of the key %q", s.Addr, q.config.KeyName)
				}
				says(t, e, "read "+prefix2136+want+advice)
			})
		}
	})
}

// TestNotAllowed has a key that the server knows and does not let write.
func TestNotAllowed(t *testing.T) {
	dnsServers(t, func(t *testing.T, s *labtest.DNSServer, p *place) {
		for name, key := range map[string]string{"guest": s.Guest, "unsigned": ""} {
			t.Run(name, func(t *testing.T) {
				q := *p
				q.config.KeyName = key
				err := q.open(t, dnsupdate.Options{}).Apply(t.Context(), change("_mta-sts."+zone, sts("now")))
				code := "REFUSED"
				if s.Program == "Knot" {
					code = "NOTAUTH"
				}
				says(t, q.fails(t, err, dnsupdate.KindRefused), "write "+prefix2136+"the server says "+code+" to an update; "+
					"let server be the primary of the zone, and allow the key to update TXT at this name"+
					" (BIND: update-policy; Knot: acl; PowerDNS: TSIG-ALLOW-DNSUPDATE)")
				p.wantData(t, "_mta-sts."+zone)
			})
		}
	})
}

// TestLostAnswer cuts the connection after the server has made the update.
func TestLostAnswer(t *testing.T) {
	dnsServers(t, func(t *testing.T, s *labtest.DNSServer, p *place) {
		m := startMeddler(t, s.Addr, func(m message) bool { return m.n != 2 })
		p.config.Server = m.addr
		name := "_mta-sts." + zone
		p.set(t, name, "TXT", quoted(sts("old")), `"stranger"`)
		a := p.open(t, dnsupdate.Options{})
		c := change(name, sts("now"), sts("old"))
		err := a.Apply(t.Context(), c)
		says(t, p.fails(t, err, dnsupdate.KindUnavailable), "write "+prefix2136+"ask server "+m.addr+": EOF; trying again later")
		apply(t, a, c)
		if got := m.messages.Load(); got != 3 {
			t.Errorf("%d messages, want 3: the change was there already", got)
		}
		p.wantData(t, name, quoted(sts("now")), `"stranger"`)
	})
}

// TestSwapped has somebody else write between the look and the update.
func TestSwapped(t *testing.T) {
	dnsServers(t, func(t *testing.T, s *labtest.DNSServer, p *place) {
		tests := map[string]struct {
			before, between, after []string
			leave                  bool // nothing is added
			kind                   dnsupdate.Kind
		}{
			"a stranger comes": {
				before: []string{quoted(sts("old"))}, between: []string{quoted(sts("old")), `"new stranger"`},
				after: []string{quoted(sts("now")), `"new stranger"`},
			},
			"a stranger comes first": {
				between: []string{`"new stranger"`}, after: []string{quoted(sts("now")), `"new stranger"`},
			},
			"all goes": {
				before: []string{quoted(sts("old")), `"stranger"`}, after: []string{quoted(sts("now"))},
			},
			"a foreign one comes": {
				before: []string{quoted(sts("old"))}, between: []string{quoted(sts("foreign"))},
				after: []string{quoted(sts("foreign"))}, kind: dnsupdate.KindConflict,
			},
			"a foreign one comes first": {
				between: []string{quoted(sts("foreign"))}, after: []string{quoted(sts("foreign"))}, kind: dnsupdate.KindConflict,
			},
			"a foreign one comes, ours leaves": {
				before: []string{quoted(sts("old"))}, between: []string{quoted(sts("old")), quoted(sts("foreign"))},
				after: []string{quoted(sts("foreign"))}, leave: true,
			},
			"a foreign one has come for ours that leaves": {
				before: []string{quoted(sts("old"))}, between: []string{quoted(sts("foreign"))},
				after: []string{quoted(sts("foreign"))}, leave: true,
			},
		}
		for name, tt := range tests {
			t.Run(name, func(t *testing.T) {
				record := "_mta-sts." + zone
				p.set(t, record, "TXT", tt.before...)
				q := *p
				q.config.Server = startMeddler(t, s.Addr, func(m message) bool {
					if m.n == 1 {
						p.set(t, record, "TXT", tt.between...)
					}
					return true
				}).addr
				c := change(record, sts("now"), sts("old"))
				if tt.leave {
					c.Add = ""
				}
				err := q.open(t, dnsupdate.Options{}).Apply(t.Context(), c)
				if tt.kind != "" {
					says(t, q.fails(t, err, tt.kind), "read "+prefix2136+`the STSv1 record "v=STSv1; id=foreign;" is there, too`)
				} else if err != nil {
					t.Errorf("Apply: %v", err)
				}
				p.wantData(t, record, tt.after...)
			})
		}
	})
}

// TestRestless has the record change under every try.
func TestRestless(t *testing.T) {
	t.Parallel()
	s := labtest.StartBIND(t, lab.Zone{Name: zone})
	p := dnsPlace(s)
	record := "_mta-sts." + zone
	p.config.Server = startMeddler(t, s.Addr, func(m message) bool {
		p.set(t, record, "TXT", fmt.Sprintf(`"stranger %d"`, m.n))
		return true
	}).addr
	err := p.open(t, dnsupdate.Options{}).Apply(t.Context(), change(record, sts("now")))
	says(t, p.fails(t, err, dnsupdate.KindConflict), "write "+prefix2136+"the record changed while it was written, 4 times")
}

// TestSilentServer accepts connections and says nothing.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() { // ends with the listener
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { conn.Close() })
			go io.Copy(io.Discard, conn)
		}
	}()
	p := &place{config: config.Account{Name: "main", Provider: "rfc2136", Server: l.Addr().String()}}
	a := p.open(t, dnsupdate.Options{})
	for name, end := range map[string]func() (context.Context, context.CancelFunc){
		"deadline": func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(t.Context(), 100*time.Millisecond)
		},
		"cancelled": func() (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(t.Context())
			context.AfterFunc(t.Context(), cancel)
			time.AfterFunc(100*time.Millisecond, cancel)
			return ctx, cancel
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := end()
			defer cancel()
			start := time.Now()
			p.fails(t, a.Apply(ctx, change("_mta-sts."+zone, sts("now"))), dnsupdate.KindUnavailable)
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("Apply took %v", took)
			}
		})
	}
}

// TestOpenRFC2136 refuses what cannot work, without showing the key.
func TestOpenRFC2136(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		account config.Account
		want    string
	}{
		"not base64": {config.Account{KeyName: "k", Key: "secret!"}, `open account "main": the TSIG key is not base64`},
		"algorithm": {config.Account{KeyName: "k", Key: "c2VjcmV0", KeyAlgorithm: "hmac-md5"}, `open account "main": key_algorithm "hmac-md5":` +
			` want one of hmac-sha256, hmac-sha384, hmac-sha512, hmac-sha224, hmac-sha1`},
	}
	for name, tt := range tests {
		tt.account.Name, tt.account.Provider, tt.account.Server = "main", "rfc2136", "127.0.0.1"
		_, err := dnsupdate.Open(tt.account, dnsupdate.Options{})
		if err == nil || err.Error() != tt.want || strings.Contains(err.Error(), "secret!") {
			t.Errorf("%s: Open = %v, want %s", name, err, tt.want)
		}
	}
	_, err := dnsupdate.Open(config.Account{Name: "main", Provider: "godaddy"}, dnsupdate.Options{})
	if err == nil || err.Error() != `open account "main": unknown provider "godaddy"` {
		t.Errorf("Open = %v", err)
	}
}
