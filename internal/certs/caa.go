package certs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/miekg/dns"

	"github.com/stspub/stspub/internal/sender"
)

// caaSet is the CAA records that bind a name, and where they are.
type caaSet struct {
	at      string // without records ""
	records []*dns.CAA
}

// findCAA climbs from a name to the top and returns the first CAA records on the way, which alone bind it (RFC 8659,
// Section 3). At each step CNAMEs are followed; what lies above their targets does not count. All steps are asked about at
// once: each may have to wait until a dead name server is given up.
func findCAA(ctx context.Context, r *sender.Resolver, name string) (caaSet, error) {
	steps := climb(name)
	sets, errs := make([]caaSet, len(steps)), make([]error, len(steps))
	var wg sync.WaitGroup
	for i, at := range steps {
		wg.Go(func() { sets[i], errs[i] = caaAt(ctx, r, at) })
	}
	wg.Wait()
	for i := range steps {
		if errs[i] != nil && i == len(steps)-1 {
			return caaSet{}, nil // no top-level domain has any, and name servers for a few zones only refuse the question
		}
		if errs[i] != nil || len(sets[i].records) > 0 {
			return sets[i], errs[i]
		}
	}
	return caaSet{}, nil
}

// caaAt asks at one name.
func caaAt(ctx context.Context, r *sender.Resolver, name string) (caaSet, error) {
	a, err := r.Lookup(ctx, name, dns.TypeCAA)
	if err != nil {
		return caaSet{}, err
	}
	s := caaSet{at: name}
	if len(a.Chain) > 0 {
		s.at = a.Chain[len(a.Chain)-1]
	}
	for _, rr := range a.RRs {
		if caa, ok := rr.(*dns.CAA); ok {
			s.records = append(s.records, caa)
		}
	}
	return s, nil
}

// climb returns a name and all above it, but for the root.
func climb(name string) []string {
	name = canonical(name)
	all := []string{name}
	for {
		_, parent, found := strings.Cut(name, ".")
		if !found {
			return all
		}
		all = append(all, parent)
		name = parent
	}
}

// issuer is an authority as CAA records know it.
type issuer struct {
	identities []string // empty: not known
	account    string   // empty: not known
}

// bindsAccount says whether there is a parameter that demands an account.
func (s caaSet) bindsAccount() bool {
	return slices.ContainsFunc(s.records, func(r *dns.CAA) bool {
		p, _ := parseIssue(r.Value)
		return len(p.values("accounturi")) > 0
	})
}

// errCritical is that a record forbids what all others allow.
var errCritical = errors.New("critical, and a property that no authority knows")

// allow returns those of the methods by which CAA records let an issuer validate a name that is no wildcard, or an error
// that says why there is none. What is not known of the issuer is not held against it.
func (s caaSet) allow(by issuer, methods []string) ([]string, error) {
	var issue []*dns.CAA
	for _, r := range s.records {
		switch strings.ToLower(r.Tag) {
		case "issue":
			issue = append(issue, r)
		case "issuewild", "iodef", "issuemail": // about other certificates (RFC 8659, Section 4.3; RFC 9495), or about none
		default:
			// Critical is bit 0, which is 128. Let's Encrypt takes 1 for it as well, because many write that.
			if r.Flag&(1<<7|1) != 0 {
				return nil, fmt.Errorf("%s is %w", caaText(r), errCritical)
			}
		}
	}
	if len(issue) == 0 {
		return methods, nil // RFC 8659, Section 4.2
	}
	var allowed []string
	var reasons []string
	for _, r := range issue {
		ways, why := permits(r.Value, by, methods)
		allowed = append(allowed, ways...)
		if len(ways) == 0 {
			reasons = append(reasons, caaText(r)+" "+why)
		}
	}
	if len(allowed) == 0 {
		return nil, errors.New(strings.Join(reasons, ", "))
	}
	return slices.DeleteFunc(slices.Clone(methods), func(m string) bool { return !slices.Contains(allowed, m) }), nil
}

// permits returns those of the methods that the value of one issue property allows, or why there is none.
func permits(value string, by issuer, methods []string) (ways []string, why string) {
	p, ok := parseIssue(value)
	switch {
	case !ok:
		return nil, "is malformed, so it allows nobody" // RFC 8659, Section 4.2
	case p.issuer == "":
		return nil, "allows nobody"
	case len(by.identities) > 0 && !slices.ContainsFunc(by.identities, func(i string) bool { return strings.EqualFold(i, p.issuer) }):
		return nil, "allows another authority"
	}
	// RFC 8657, Sections 3 and 4: a parameter that is there twice is fulfilled by nobody.
	accounts, lists := p.values("accounturi"), p.values("validationmethods")
	switch {
	case len(accounts) > 1 || len(lists) > 1:
		return nil, "has a parameter twice, so it allows nobody"
	case len(accounts) == 1 && by.account != "" && accounts[0] != by.account:
		return nil, "allows another account than ours, which is " + by.account
	case len(lists) == 0:
		return methods, ""
	}
	listed := strings.Split(lists[0], ",")
	ways = slices.DeleteFunc(slices.Clone(methods), func(m string) bool { return !slices.Contains(listed, m) })
	return ways, "does not allow to validate by " + strings.Join(methods, " or ") + ", which is what works here"
}

// issueValue is the value of an issue property.
type issueValue struct {
	issuer string // lower case; empty: nobody
	params []caaParam
}

type caaParam struct{ tag, value string }

// values are those of all parameters with a tag; tags have no case.
func (v issueValue) values(tag string) []string {
	var all []string
	for _, p := range v.params {
		if strings.EqualFold(p.tag, tag) {
			all = append(all, p.value)
		}
	}
	return all
}

// parseIssue reads the value of an issue property by the grammar of RFC 8659, Section 4.2.
func parseIssue(s string) (v issueValue, ok bool) {
	const space = " \t"
	head, rest, found := strings.Cut(s, ";")
	v.issuer = strings.ToLower(strings.Trim(head, space))
	if v.issuer != "" && !isIssuer(v.issuer) {
		return issueValue{}, false
	}
	if !found || strings.Trim(rest, space) == "" {
		return v, true
	}
	for part := range strings.SplitSeq(rest, ";") {
		tag, value, found := strings.Cut(part, "=")
		p := caaParam{strings.Trim(tag, space), strings.Trim(value, space)}
		if !found || !isLabel(p.tag) || strings.ContainsFunc(p.value, func(r rune) bool { return r < '!' || r > '~' }) {
			return issueValue{}, false
		}
		v.params = append(v.params, p)
	}
	return v, true
}

// isIssuer says whether a string is an issuer-domain-name.
func isIssuer(s string) bool {
	for label := range strings.SplitSeq(s, ".") {
		if !isLabel(label) {
			return false
		}
	}
	return true
}

// isLabel says whether a string is made of letters, digits and inner hyphens.
func isLabel(s string) bool {
	return s != "" && s[0] != '-' && s[len(s)-1] != '-' && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-'
	})
}

// caaText is a record as a zone file has it.
func caaText(r *dns.CAA) string { return fmt.Sprintf("CAA %d %s %q", r.Flag, r.Tag, r.Value) }
