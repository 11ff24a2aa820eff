package dnsupdate_test

import (
	"testing"
	"time"

	"github.com/stspub/stspub/internal/dnsupdate"
	"github.com/stspub/stspub/internal/lab/labtest"
)

// clouds are the providers that are faked by [labtest.Cloud], by name.
func clouds() map[string]func(testing.TB, ...string) *labtest.Cloud {
	return map[string]func(testing.TB, ...string) *labtest.Cloud{
		"route53":      labtest.StartRoute53,
		"desec":        labtest.StartDeSEC,
		"cloudns":      labtest.StartClouDNS,
		"ovh":          labtest.StartOVH,
		"mythicbeasts": labtest.StartMythicBeasts,
	}
}

func cloudPlace(t *testing.T, name string) (*labtest.Cloud, *place) {
	c := clouds()[name](t, "example.com", zone)
	c.Put("*.wild."+zone, "TXT", `"v=spf1 -all"`)
	c.Put("*.shared."+zone, "TXT", `"v=STSv1; id=shared;"`)
	c.Put("*.elsewhere."+zone, "CNAME", "example.net.")
	set := func(_ testing.TB, name, typ string, values ...string) {
		c.Remove(name, typ)
		for _, v := range values {
			c.Put(name, typ, v)
		}
	}
	p := &place{config: c.Account("main"), addr: c.DNS.Addr, set: set, writes: c.Writes, alone: name != "route53"}
	if name == "desec" {
		p.minTTL = time.Hour
	}
	return c, p
}

var _ = dnsupdate.KindAuth
