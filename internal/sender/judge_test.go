package sender

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"flag"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
)

// observed is a domain with something of everything, at a fixed time.
func observed(t *testing.T) *seen {
	t.Helper()
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	certificate := func(left time.Duration, names ...string) *x509.Certificate {
		return &x509.Certificate{
			DNSNames: names, NotBefore: now.AddDate(0, 0, -60), NotAfter: now.Add(left),
			Issuer: pkix.Name{Organization: []string{"Example CA"}, CommonName: "E1"},
		}
	}
	body := "version: STSv1\r\nmode: enforce\r\nmax_age: 1209600\r\nmx: mx1.example.net\r\nmx: mx2.example.net\r\n"
	header := http.Header{"Content-Type": {"text/plain; charset=utf-8"}, "Cache-Control": {"no-store"}}
	answered := Fetched{
		Addr: "192.0.2.1:443", Status: 200, Proto: "HTTP/2.0", Header: header, Body: []byte(body),
		Certificate: certificate(29*24*time.Hour, "mta-sts.example.org"), Took: 123456 * time.Microsecond,
	}
	record := parseRR(t, `h.d.default.sts.example.net. 300 IN TXT "v=STSv1; id=20261122095500a1b2c3d4;"`)
	return &seen{
		name: "example.org", now: now,
		record: Answer{
			Chain: []string{"h.d.default.sts.example.net"}, RRs: []dns.RR{record}, TTL: 5 * time.Minute, MaxTTL: time.Hour,
		},
		host:    Addresses{Chain: []string{"default.mta-sts.example.net"}},
		fetches: []fetch{{Fetched: answered}},
		mx: []probe{
			{host: "mx1.example.net", preference: 10, Probed: Probed{
				Addr: "192.0.2.25:25", STARTTLS: true, TLSVersion: "TLS 1.3", Certificate: certificate(5*24*time.Hour, "mx1.example.net"),
			}},
			{host: "mx3.example.net", preference: 20, Probed: Probed{Addr: "192.0.2.26:25"}, failed: &StepError{
				Step: StepConnect, Host: "mx3.example.net", Addr: "192.0.2.26:25", Err: errors.New("no answer in time"),
			}},
		},
	}
}

func parseRR(t *testing.T, line string) dns.RR {
	t.Helper()
	rr, err := dns.NewRR(line)
	if err != nil {
		t.Fatal(err)
	}
	return rr
}

// golden compares with a file of testdata, or writes it when the tests run with -update.
func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", file)
	if flag.Lookup("update").Value.String() == "true" {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

func TestMain(m *testing.M) {
	flag.Bool("update", false, "write the files of testdata")
	os.Exit(m.Run())
}

func TestReportForPeople(t *testing.T) {
	t.Parallel()
	bad := observed(t)
	bad.record = Answer{Chain: []string{"nowhere.example.net"}, NXDomain: true}
	bad.fetches[0].Status, bad.fetches[0].Body = 404, []byte("<h1>\x1b[2Jnot here</h1>")
	bad.fetches[0].failed = &StepError{Step: StepStatus, Host: "mta-sts.example.org", Addr: "192.0.2.1:443", Err: errors.New("status 404")}

	good := observed(t)
	good.mx = good.mx[:1]
	good.mx[0].Certificate.NotAfter = good.now.AddDate(0, 0, 60)
	good.tlsrpt = Answer{RRs: []dns.RR{parseRR(t, `_smtp._tls.example.org. 60 IN TXT "v=TLSRPTv1; rua=mailto:tls@example.org"`)}}
	for file, s := range map[string]*seen{"good.txt": good, "mixed.txt": observed(t), "bad.txt": bad} {
		var b bytes.Buffer
		if err := judge(s).WriteText(&b); err != nil {
			t.Fatal(err)
		}
		golden(t, file, b.Bytes())
	}
}

func TestReportForPrograms(t *testing.T) {
	t.Parallel()
	report := judge(observed(t))
	got, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "mixed.json", append(got, '\n'))

	var back Report
	if err := json.Unmarshal(got, &back); err != nil {
		t.Fatal(err)
	}
	back.Policy.Took, report.Policy.Took = 0, 0 // rounded
	if diff := cmp.Diff(report, back); diff != "" {
		t.Errorf("report after JSON (-want +got):\n%s", diff)
	}

	empty, err := json.Marshal(judge(&seen{name: "example.org", hostFailed: &StepError{Err: errors.New("x")}, mxErr: errors.New("x")}))
	if err != nil || bytes.Contains(empty, []byte("null")) {
		t.Errorf("empty report in JSON = %s, %v, want no null", empty, err)
	}
}

// What takes too long to wait for in a test.
func TestJudgeSlowAnswer(t *testing.T) {
	t.Parallel()
	for took, slow := range map[time.Duration]bool{1900 * time.Millisecond: false, 2100 * time.Millisecond: true} {
		s := observed(t)
		s.fetches[0].Took = took
		got := slices.ContainsFunc(judge(s).Findings, func(f Finding) bool { return f.Code == "policy-slow" && f.Severity == Warning })
		if got != slow {
			t.Errorf("warning about an answer in %v: %v, want %v", took, got, slow)
		}
	}
}

func TestCacheable(t *testing.T) {
	t.Parallel()
	for control, want := range map[string]bool{
		"": false, "no-store": false, "no-store, max-age=60": false, "max-age=0": false, "private, max-age=60": false,
		"max-age=60": true, "public": true, "s-maxage=10, max-age=60": true,
	} {
		if got := cacheable(control); got != want {
			t.Errorf("cacheable(%q) = %v, want %v", control, got, want)
		}
	}
}

func TestDurationText(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		2345 * time.Millisecond: "2.3 s", 90 * time.Millisecond: "0.09 s", time.Minute: "60 s", 5 * time.Minute: "5 min",
		24 * time.Hour: "24 h", 14 * 24 * time.Hour: "14 days",
	} {
		if got := durationText(d); got != want {
			t.Errorf("durationText(%v) = %q, want %q", d, got, want)
		}
	}
}
