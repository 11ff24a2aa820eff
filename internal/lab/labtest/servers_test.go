package labtest_test

import (
	"testing"

	"github.com/miekg/dns"

	"github.com/stspub/stspub/internal/lab"
	"github.com/stspub/stspub/internal/lab/labtest"
)

// TestServers starts every server and changes records of several types.
func TestServers(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(testing.TB, ...lab.Zone) *labtest.DNSServer{
		"BIND": labtest.StartBIND, "Knot": labtest.StartKnot, "PowerDNS": labtest.StartPowerDNS,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, lab.Zone{Name: "example.org", Text: "www A 192.0.2.1\n_mta-sts 300 TXT \"a\" \"b\""}, lab.Zone{Name: "sub.example.org"})
			answers(t, s, "_mta-sts.example.org", dns.TypeTXT, "\"a\" \"b\"")
			s.Set(t, "www.example.org", "A", "192.0.2.2", "192.0.2.3")
			answers(t, s, "www.example.org", dns.TypeA, "192.0.2.2", "192.0.2.3")
			s.Set(t, "www.example.org", "A")
			s.Set(t, "www.example.org", "CNAME", "elsewhere.example.net.")
			answers(t, s, "www.example.org", dns.TypeCNAME, "elsewhere.example.net.")
			s.Set(t, "x.sub.example.org", "TXT", `"in the zone below"`)
			answers(t, s, "x.sub.example.org", dns.TypeTXT, `"in the zone below"`)
		})
	}
}

func answers(t *testing.T, s *labtest.DNSServer, name string, qtype uint16, want ...string) {
	t.Helper()
	r, err := s.Query(name, qtype)
	if err != nil {
		t.Fatalf("Query(%s): %v", name, err)
	}
	got := make(map[string]bool)
	for _, rr := range r.Answer {
		got[rr.String()[len(rr.Header().String()):]] = true
	}
	if !r.Authoritative || len(got) != len(want) {
		t.Fatalf("Query(%s) = %v, want %v", name, r, want)
	}
	for _, w := range want {
		if !got[w] {
			t.Errorf("Query(%s) = %v, want %v", name, got, want)
		}
	}
}
