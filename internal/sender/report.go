package sender

import (
	"crypto/x509"
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"github.com/stspub/stspub/internal/policygen"
)

// Severity says how much a finding matters.
type Severity string

// The severities, from good to bad.
const (
	OK      Severity = "ok"      // looked at, and right
	Info    Severity = "info"    // worth knowing
	Warning Severity = "warning" // some senders stumble, or soon will, or it could not be proven
	Fault   Severity = "fault"   // senders do not take the policy, or mail is held back
)

// Finding is one thing that a check has to say.
type Finding struct {
	Code     string   `json:"code"` // stable, in kebab-case; begins with record-, host-, policy-, certificate-, mx- or tlsrpt-
	Severity Severity `json:"severity"`
	Section  string   `json:"section"` // as "RFC 8461, 3.1"
	Subject  string   `json:"subject"` // owner name of a record, host, or URL
	Message  string   `json:"message"`
	Advice   string   `json:"advice,omitempty"` // what to do
}

// Report is what a sender sees of a domain: the findings in the order in which a sender meets them, and what they were
// drawn from. In JSON it also has the key "ok".
type Report struct {
	Name     policygen.Name `json:"name"`
	Checked  time.Time      `json:"checked"`
	Findings []Finding      `json:"findings"`

	Record Record     `json:"record"`
	Policy PolicySeen `json:"policy"`
	MX     []MX       `json:"mx"`
	TLSRPT []string   `json:"tlsrpt"` // TXT records at _smtp._tls.<domain> (RFC 8460)
}

// Record is what DNS has at _mta-sts.<domain>.
type Record struct {
	Name  string   `json:"name"`
	Chain []string `json:"chain"` // targets of CNAMEs
	TXT   []string `json:"txt"`   // each record, its character-strings joined
	ID    string   `json:"id"`    // of the only STSv1 record; empty: there is no good one
	TTL   Seconds  `json:"ttl"`
}

// PolicySeen is what the policy host answered, at the first address that answered.
type PolicySeen struct {
	URL         string       `json:"url"`
	Chain       []string     `json:"chain"`     // targets of the policy host's CNAMEs
	Addresses   []string     `json:"addresses"` // "ADDR:PORT"
	Addr        string       `json:"addr"`      // the one that answered
	Status      int          `json:"status"`
	Proto       string       `json:"proto"`
	Header      http.Header  `json:"header"`
	Body        string       `json:"body"`
	Took        Seconds      `json:"took"`
	Mode        string       `json:"mode"` // of a policy that can be read
	MaxAge      Seconds      `json:"max_age"`
	Patterns    []string     `json:"patterns"`
	Certificate *Certificate `json:"certificate,omitempty"`
}

// MX is one mail server of the domain.
type MX struct {
	Host        string       `json:"host"`
	Preference  uint16       `json:"preference"`
	Implicit    bool         `json:"implicit"` // there is no MX record; mail goes to the domain itself
	Addr        string       `json:"addr"`     // "ADDR:PORT" that was reached
	Covered     bool         `json:"covered"`  // the policy lists it
	Listed      bool         `json:"listed"`   // its certificate has a name that the policy lists
	STARTTLS    bool         `json:"starttls"`
	TLSVersion  string       `json:"tls_version"`
	Step        Step         `json:"step,omitempty"` // where the probe ended early, and why
	Error       string       `json:"error,omitempty"`
	Certificate *Certificate `json:"certificate,omitempty"`
}

// Certificate is what matters of an X.509 certificate.
type Certificate struct {
	Names     []string  `json:"names"`
	Issuer    string    `json:"issuer"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
}

// Seconds is a duration that is a number of seconds in JSON.
type Seconds time.Duration

// MarshalJSON writes seconds, with three decimals at most.
func (s Seconds) MarshalJSON() ([]byte, error) {
	return json.Marshal(time.Duration(s).Round(time.Millisecond).Seconds())
}

// UnmarshalJSON reads what MarshalJSON writes.
func (s *Seconds) UnmarshalJSON(b []byte) error {
	var f float64
	if err := json.Unmarshal(b, &f); err != nil {
		return err
	}
	*s = Seconds(f * float64(time.Second))
	return nil
}

// OK says that there is no fault.
func (r Report) OK() bool { return r.count(Fault) == 0 }

// MarshalJSON adds "ok" to the fields.
func (r Report) MarshalJSON() ([]byte, error) {
	type plain Report
	return json.Marshal(struct {
		OK bool `json:"ok"`
		plain
	}{r.OK(), plain(r)})
}

func (r Report) count(s Severity) int {
	n := 0
	for _, f := range r.Findings {
		if f.Severity == s {
			n++
		}
	}
	return n
}

func newCertificate(c *x509.Certificate) *Certificate {
	if c == nil {
		return nil
	}
	issuer := c.Issuer.CommonName
	if len(c.Issuer.Organization) > 0 {
		issuer = c.Issuer.Organization[0] + " " + issuer
	}
	return &Certificate{
		Names:     slices.Clone(c.DNSNames),
		Issuer:    issuer,
		NotBefore: c.NotBefore.UTC(),
		NotAfter:  c.NotAfter.UTC(),
	}
}
