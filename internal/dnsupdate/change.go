package dnsupdate

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/stspub/stspub/internal/policygen"
)

const (
	maxName   = 253 // octets of a name as text, RFC 1035, Section 2.3.4
	maxString = 255 // octets of a character-string, RFC 1035, Section 3.3
)

// check refuses what no provider should be asked.
func (c Change) check() error {
	switch {
	case len(c.Name) > maxName:
		return faultf(KindRefused, "the name has %d octets, more than %d", len(c.Name), maxName)
	case c.Zone == "" || c.Zone == "." || !dns.IsSubDomain(dns.Fqdn(c.Zone), dns.Fqdn(c.Name)):
		return faultf(KindNoZone, "the name is not in the zone")
	case c.Add == "":
		return nil
	case len(c.Add) > maxString:
		return faultf(KindRefused, "the value has %d octets, more than %d", len(c.Add), maxString)
	case strings.ContainsFunc(c.Add, func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }):
		return faultf(KindRefused, "value %q: a character that would need an escape", c.Add)
	case c.TTL < time.Second:
		return faultf(KindRefused, "TTL %v: shorter than a second", c.TTL)
	}
	return nil
}

// plan is what a change needs where certain values are.
type plan struct {
	remove []int // positions in what was found
	add    bool
}

func (p plan) empty() bool { return len(p.remove) == 0 && !p.add }

// plan decides what to do about the TXT values found at the name. It is the one place that knows whose a record is.
// Removing ours beside a foreign STSv1 record is no conflict: it takes the name from two records to one.
func (c Change) plan(found []string) (plan, error) {
	adds := c.Add != "" // without it, a record that holds the empty value is a stranger
	p := plan{add: adds}
	for i, text := range found {
		switch {
		case p.add && text == c.Add:
			p.add = false // it is there; further ones are not wanted
		case adds && text == c.Add, slices.Contains(c.Remove, text):
			p.remove = append(p.remove, i)
		case adds && policygen.IsSTSv1(text):
			return plan{}, faultf(KindConflict, "the STSv1 record %q is there, too", text)
		}
	}
	return p, nil
}

// text joins the character-strings of a TXT record and takes the escapes of the presentation format away.
func text(rr *dns.TXT) string {
	var b strings.Builder
	for _, s := range rr.Txt {
		for i := 0; i < len(s); i++ {
			if s[i] != '\\' || i+1 == len(s) {
				b.WriteByte(s[i])
				continue
			}
			if code, ok := decimal(s[i+1:]); ok {
				b.WriteByte(code)
				i += 3
				continue
			}
			i++
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

// decimal reads the DDD of an escape \DDD.
func decimal(s string) (byte, bool) {
	if len(s) < 3 {
		return 0, false
	}
	n := 0
	for _, c := range []byte(s[:3]) {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return byte(n), n <= 255
}

// texts are the values of TXT records.
func texts(rrs []*dns.TXT) []string {
	out := make([]string, len(rrs))
	for i, rr := range rrs {
		out[i] = text(rr)
	}
	return out
}

// parseTXT reads the data of a TXT record as in a zone file.
func parseTXT(data string) (string, error) {
	rr, err := dns.NewRR(". 0 IN TXT " + data)
	if err != nil {
		return "", err
	}
	txt, ok := rr.(*dns.TXT)
	if !ok {
		return "", errors.New("not TXT data")
	}
	return text(txt), nil
}
