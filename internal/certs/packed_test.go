package certs

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/acme"
)

// TestChallengesOfStrangersAreFew: whoever sends them, a name that is wanted has its answer.
func TestChallengesOfStrangersAreFew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		read := make(map[string]int)
		k := New(Config{Authorities: []Authority{silent{}}, Challenge: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			read[h.ServerName]++
			return nil, nil
		}})
		ask := func(name string) {
			hello := &tls.ClientHelloInfo{ServerName: name, SupportedProtos: []string{acme.ALPNProto}}
			if _, err := k.GetCertificate(hello); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		p := fake(k.memory, 1, 600)
		p.notBefore, p.notAfter = time.Now().Unix(), time.Now().Add(90*testDay).Unix()
		k.memory.set("mta-sts.known.test", p)
		k.Want("mta-sts.known.test", true)
		k.Want("mta-sts.new.test", true)
		k.Want("mta-sts.gone.test", true)
		k.Unwant("mta-sts.gone.test")
		for n := range 1000 {
			ask(fmt.Sprintf("x%d.test", n))
		}
		if len(read) != strangersPerSecond {
			t.Errorf("%d names that nobody wants were looked up", len(read))
		}
		for _, name := range []string{"mta-sts.known.test", "MTA-STS.new.test", "mta-sts.gone.test"} {
			ask(name)
		}
		if read["mta-sts.known.test"] != 1 || read["MTA-STS.new.test"] != 1 || read["mta-sts.gone.test"] != 0 {
			t.Errorf("looked up: %v", read)
		}
		time.Sleep(time.Second)
		if ask("mta-sts.elsewhere.test"); read["mta-sts.elsewhere.test"] != 1 {
			t.Error("a second later a name that another node may want is not looked up")
		}

		// The same on port 80.
		time.Sleep(time.Minute)
		asked := make(map[string]int)
		h := k.FewStrangers(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked[r.Host]++ }), http.NotFoundHandler())
		get := func(host string) int {
			rec := httptest.NewRecorder()
			r := httptest.NewRequest(http.MethodGet, "/.well-known/acme-challenge/x", nil)
			r.Host = host
			h.ServeHTTP(rec, r)
			return rec.Code
		}
		for n := range 1000 {
			get(fmt.Sprintf("x%d.test", n))
		}
		if len(asked) != strangersPerSecond || get("mta-sts.gone.test") != http.StatusNotFound {
			t.Errorf("%d names that nobody wants were looked up", len(asked))
		}
		for _, host := range []string{"mta-sts.known.test", "MTA-STS.new.test.:80"} {
			if get(host); asked[host] != 1 {
				t.Errorf("%s was not looked up", host)
			}
		}
	})
}
