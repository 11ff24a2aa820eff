package sender

import (
	"bytes"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/stspub/stspub/internal/policygen"
)

const (
	slowAnswer  = 2 * time.Second // the shortest time-out among senders in use
	safeBody    = 10 << 10        // one client reads no more
	shortMaxAge = 24 * time.Hour
)

const (
	sectionPolicy = "RFC 8461, 3.2"
	sectionHTTPS  = "RFC 8461, 3.3"
)

// judgePolicy is about the policy host and what it answers.
func (j *judgement) judgePolicy() {
	host := j.name.PolicyHost()
	p := PolicySeen{
		URL: "https://" + host + policyPath, Chain: list(j.host.Chain), Addresses: []string{}, Header: http.Header{}, Patterns: []string{},
	}
	defer func() { j.report.Policy = p }()
	for _, f := range j.fetches {
		p.Addresses = append(p.Addresses, f.Addr)
	}
	if len(j.fetches) == 0 {
		j.judgeAddress(host)
		return
	}
	if j.hostFailed != nil {
		j.say(Warning, "host-lookup", sectionHTTPS, host, "the name servers answered for one address family only: "+j.hostFailed.Err.Error(),
			"Look at the name servers of the zone; some senders then take the host for unreachable.")
	}
	if len(p.Chain) > 0 {
		j.say(Info, "host-chain", sectionDelegation, host, "is a CNAME to "+chainText(p.Chain), "")
	}
	main := j.fetches[mainFetch(j.fetches)]
	p.Addr, p.Status, p.Proto, p.Took, p.Certificate = main.Addr, main.Status, main.Proto, Seconds(main.Took), newCertificate(main.Certificate)
	p.Body = string(main.Body)
	if main.Header != nil {
		p.Header = main.Header
	}
	if main.failed != nil {
		j.judgeFailure(main.failed, main)
	} else {
		j.judgeCertificateTime(host, p.Certificate, sectionHTTPS)
		j.judgeHeaders(p.URL, main)
		j.judgeBody(p.URL, main.Body)
	}
	j.judgeOthers(main)
	p.Mode, p.MaxAge, p.Patterns = string(j.policy.Mode), Seconds(j.policy.MaxAge)*Seconds(time.Second), list(j.policy.MX)
}

// mainFetch is the first whole answer, else the first that got beyond the connection, else the first.
func mainFetch(all []fetch) int {
	if i := slices.IndexFunc(all, func(f fetch) bool { return f.failed == nil }); i >= 0 {
		return i
	}
	return max(0, slices.IndexFunc(all, func(f fetch) bool { return f.failed.Step != StepConnect }))
}

func (j *judgement) judgeAddress(host string) {
	switch {
	case j.hostFailed.Step == StepResolve:
		j.say(Fault, "host-lookup", sectionHTTPS, host, "the name servers gave no answer: "+j.hostFailed.Err.Error(),
			"Ask again later; if it stays, look at the name servers of the zone, and at DNSSEC.")
	case len(j.host.Chain) > 0:
		j.say(Fault, "host-dangling", sectionDelegation, host,
			fmt.Sprintf("is a CNAME to %s, which has no address", chainText(j.host.Chain)),
			"Correct the CNAME, or give its target an address.")
	default:
		j.say(Fault, "host-missing", sectionHTTPS, host, "the policy host has no address: "+j.hostFailed.Err.Error(),
			"Publish A and AAAA records, or a CNAME to who serves the policy.")
	}
}

// judgeFailure says why there is no policy.
func (j *judgement) judgeFailure(failed *StepError, f fetch) {
	host, at := failed.Host, " (at "+failed.Addr+")"
	switch failed.Step {
	case StepConnect:
		if failed.Refused() {
			j.say(Fault, "host-refused", sectionHTTPS, host, "nobody listens"+at, "Start the web server, or open its port.")
			return
		}
		j.say(Fault, "host-unreachable", sectionHTTPS, host, fmt.Sprintf("no connection%s: %v", at, failed.Err),
			"Look at the address, at firewalls, and whether this machine may connect to it.")
	case StepTLS:
		if failed.Alert() {
			j.say(Fault, "host-tls-alert", "RFC 8461, 7.1", host, fmt.Sprintf("the server ends the TLS handshake%s: %v", at, failed.Err),
				"It has no certificate for this name, or speaks no TLS 1.2: obtain one for exactly this host.")
			return
		}
		j.say(Fault, "host-tls", "RFC 8461, 7.2", host, fmt.Sprintf("no TLS connection%s: %v", at, failed.Err),
			"The server must speak TLS 1.2 or newer on this port.")
	case StepCertificate:
		j.judgeBadCertificate(Fault, "certificate-", sectionHTTPS, host, failed.Err)
	case StepStatus:
		j.judgeStatus(f)
	case StepLength:
		j.say(Fault, "policy-length", sectionHTTPS, j.name.PolicyHost(), "the answer is longer than 64 KiB, where senders stop reading",
			"Serve nothing but the policy at this path.")
	default:
		j.say(Fault, "host-http", sectionHTTPS, host, fmt.Sprintf("no whole answer within a minute%s: %v", at, failed.Err),
			"Look at the web server.")
	}
}

func (j *judgement) judgeStatus(f fetch) {
	url := "https://" + j.name.PolicyHost() + policyPath
	if location := f.Header.Get("Location"); f.Status >= 300 && f.Status < 400 {
		j.say(Fault, "policy-redirect", sectionHTTPS, url, fmt.Sprintf("status %d, a redirect to %q; senders follow none", f.Status, location),
			"Serve the policy at this address itself.")
		return
	}
	j.say(Fault, "policy-status", sectionHTTPS, url, fmt.Sprintf("status %d; senders take 200 only", f.Status),
		"Serve the policy at this path of this host.")
}

// judgeOthers compares the other addresses with the one that was judged.
func (j *judgement) judgeOthers(main fetch) {
	for _, f := range j.fetches {
		switch {
		case f.Addr == main.Addr:
		case f.failed != nil && f.failed.Step == StepConnect && main.failed == nil:
			j.say(Warning, "host-address-unreachable", sectionHTTPS, f.Addr,
				fmt.Sprintf("no connection to this address of the policy host: %v", f.failed.Err), unreachableAdvice(f.Addr))
		case f.failed != nil && main.failed == nil:
			j.say(Fault, "host-address", sectionHTTPS, f.Addr,
				fmt.Sprintf("this address of the policy host serves no policy: %v", f.failed.Err),
				"Senders may meet any address; all must serve the policy.")
		case f.failed == nil && main.failed == nil && !bytes.Equal(f.Body, main.Body):
			j.say(Fault, "policy-differs", sectionPolicy, f.Addr, "this address serves another policy than "+main.Addr,
				"All addresses must serve the same before the record's id changes.")
		}
	}
}

func unreachableAdvice(addr string) string {
	if a, err := netip.ParseAddrPort(addr); err == nil && a.Addr().Is6() {
		return "Some senders try one address only. If this machine has no IPv6, check from one that has."
	}
	return "Some senders try one address only: mend it, or take it out of DNS."
}

// judgeHeaders is about the answer without its body.
func (j *judgement) judgeHeaders(url string, f fetch) {
	media, _, err := mime.ParseMediaType(f.Header.Get("Content-Type"))
	if err != nil || media != "text/plain" {
		j.say(Fault, "policy-content-type", sectionPolicy, url,
			fmt.Sprintf("the content type is %q; many senders take text/plain only", f.Header.Get("Content-Type")),
			"Send Content-Type: text/plain; charset=utf-8.")
	}
	if f.Took > slowAnswer {
		j.say(Warning, "policy-slow", sectionHTTPS, url,
			fmt.Sprintf("the answer took %s; one sender in use waits for 2 s", durationText(f.Took)),
			"Serve the policy from nearer by, or from memory.")
	}
	cache := strings.ToLower(f.Header.Get("Cache-Control"))
	switch age := f.Header.Get("Age"); {
	case age != "" && age != "0":
		j.say(Warning, "policy-cached", sectionHTTPS, url, fmt.Sprintf("the answer comes from a cache (Age: %s)", clean(age)),
			"Keep caches away from this path: an old policy under a new id stays with senders.")
	case cacheable(cache):
		j.say(Info, "policy-cacheable", sectionHTTPS, url, fmt.Sprintf("proxies may keep the answer (Cache-Control: %s)", clean(cache)),
			"Send Cache-Control: no-store.")
	}
}

func cacheable(control string) bool {
	for directive := range strings.SplitSeq(control, ",") {
		switch name, value, _ := strings.Cut(strings.TrimSpace(directive), "="); name {
		case "no-store", "no-cache", "private":
			return false
		case "max-age", "s-maxage":
			if value == "0" {
				return false
			}
		}
	}
	return strings.Contains(control, "max-age") || strings.Contains(control, "s-maxage") || strings.Contains(control, "public")
}

// judgeBody is about the policy text.
func (j *judgement) judgeBody(url string, body []byte) {
	if len(body) > safeBody {
		j.say(Warning, "policy-long", sectionHTTPS, url, fmt.Sprintf("the policy has %d bytes; one sender in use stops after 10 KiB", len(body)),
			"List fewer MX patterns, by a wildcard for one.")
	}
	p, err := policygen.ParsePolicy(body)
	if tight := withoutBlank(body); err != nil && len(tight) < len(body) {
		j.say(Warning, "policy-blank-line", sectionPolicy, url, "there is a blank line; three senders in use then refuse the policy",
			"Remove it; the last line ends in one line break.")
		p, err = policygen.ParsePolicy(tight)
	}
	if err != nil {
		for _, e := range split(err) {
			j.say(Fault, "policy-malformed", sectionPolicy, url, e.Error(), "Correct the line; senders refuse the whole policy.")
		}
		return
	}
	j.policy = p
	j.say(OK, "policy", sectionPolicy, url, fmt.Sprintf("a policy of %d bytes, mode %s", len(body), p.Mode), "")
	j.judgeTerms(url, p)
}

func (j *judgement) judgeTerms(url string, p policygen.Policy) {
	switch p.Mode {
	case policygen.Testing:
		j.say(Info, "policy-testing", "RFC 8461, 5", url, "mode testing: senders report failures and deliver all the same",
			"Change to enforce once the reports are clean.")
	case policygen.None:
		j.say(Info, "policy-none", "RFC 8461, 8.3", url, "mode none: senders act as if there were no policy", "")
		return
	case policygen.Enforce:
	}
	if age := time.Duration(p.MaxAge) * time.Second; age < shortMaxAge {
		j.say(Warning, "policy-max-age", "RFC 8461, 10.2", url,
			fmt.Sprintf("max_age is %s: who holds the policy back for so long can strip TLS off", durationText(age)),
			"Use weeks (1209600 seconds are two), once the policy is settled.")
	}
}

// withoutBlank drops blank lines, which some senders accept.
func withoutBlank(body []byte) []byte {
	var out []byte
	for line := range bytes.SplitAfterSeq(body, []byte("\n")) {
		if len(bytes.TrimSpace(line)) > 0 {
			out = append(out, line...)
		}
	}
	return out
}

// split undoes errors.Join, so that each problem is a finding.
func split(err error) []error {
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		return joined.Unwrap()
	}
	return []error{err}
}
