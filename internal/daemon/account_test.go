package daemon

import (
	"errors"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/dnsupdate"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/sender"
)

// TestTenantsAccountsStayOutside: where a tenant's account leads is said by the tenant, and nobody is to knock at the doors
// of the network that we stand in.
func TestTenantsAccountsStayOutside(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	knocked := make(chan struct{}, 100)
	go func() { // ends with the listener
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			knocked <- struct{}{}
			_ = conn.Close()
		}
	}()
	d := &daemon{o: Options{Log: slog.New(slog.DiscardHandler)}, metrics: dnsupdate.NewMetrics(), conf: &config.Config{}}
	addr := ln.Addr().String()
	change := dnsupdate.Change{Zone: "a.test", Name: "_mta-sts.a.test", TTL: time.Minute, Add: "v=STSv1; id=1;"}
	for _, a := range []config.Account{
		{Name: "dns", Provider: "rfc2136", Server: addr},
		{Name: "pdns", Provider: "powerdns", Server: "http://" + addr, APIKey: "k"},
		{Name: "cf", Provider: "cloudflare", APIURL: "http://" + addr, APIToken: "k"},
		{Name: "r53", Provider: "route53", APIURL: "http://" + addr, KeyID: "k", Secret: "k"},
		{Name: "named", Provider: "desec", APIURL: "http://localhost:" + addr[len("127.0.0.1:"):], APIToken: "k"},
	} {
		for _, tenant := range []string{"b", publish.Tenant} {
			account, err := d.openAccount(tenant, a)
			if err != nil {
				t.Fatal(err)
			}
			private := tenant != publish.Tenant
			for what, err := range map[string]error{
				"Apply": account.Apply(t.Context(), change), "check": d.checkAccount(t.Context(), tenant, a, "a.test"),
			} {
				if err == nil || errors.Is(err, sender.ErrPrivate) != private {
					t.Errorf("%s of account %s of tenant %s: %v", what, a.Name, tenant, err)
				}
			}
			select {
			case <-knocked:
				if private {
					t.Errorf("account %s of tenant %s connects to %s", a.Name, tenant, addr)
				}
			default:
				if !private {
					t.Errorf("account %s of tenant %s does not connect", a.Name, tenant)
				}
			}
			for len(knocked) > 0 {
				<-knocked
			}
		}
	}
}
