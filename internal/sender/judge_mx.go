package sender

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/stspub/stspub/internal/policygen"
)

const (
	sectionMX   = "RFC 8461, 4.1"
	sectionMTLS = "RFC 8461, 4.2"
)

// judgeMX is about the hosts that mail is delivered to.
func (j *judgement) judgeMX() {
	domain := string(j.name)
	switch {
	case j.mxErr != nil:
		j.say(Warning, "mx-lookup", sectionMX, domain, "the name servers gave no answer for MX: "+j.mxErr.Error(), "Ask again later.")
		return
	case j.nullMX && len(j.mx) == 0:
		j.say(Info, "mx-null", "RFC 7505, 3", domain, "the domain takes no mail (null MX), so a policy has no effect", "")
		return
	case j.nullMX:
		j.say(Warning, "mx-null", "RFC 7505, 3", domain, "a null MX beside other MX", "Remove one or the other.")
	}
	for _, p := range j.mx {
		p.Covered = j.policy.Covers(p.host)
		p.Listed = listed(p.Certificate, j.policy)
		m := MX{
			Host: p.host, Preference: p.preference, Implicit: p.implicit, Addr: p.Addr, Covered: p.Covered, Listed: p.Listed,
			STARTTLS: p.STARTTLS, TLSVersion: p.TLSVersion, Certificate: newCertificate(p.Certificate),
		}
		if p.failed != nil {
			m.Step, m.Error = p.failed.Step, p.failed.Err.Error()
		}
		j.report.MX = append(j.report.MX, m)
		if p.implicit {
			j.say(Info, "mx-implicit", "RFC 5321, 5.1", domain, "there is no MX record, so mail goes to the domain's own address",
				"Publish an MX record, or a null MX (RFC 7505) if the domain takes no mail.")
		}
		covered := j.judgeCovered(p)
		if reached := j.judgeProbe(p, m.Certificate); reached && covered {
			j.say(OK, "mx", sectionMTLS, p.host, fmt.Sprintf("%sSTARTTLS, %s, a valid certificate", coveredText(j.policy), p.TLSVersion), "")
		}
	}
	if j.mxLeft > 0 {
		j.say(Warning, "mx-many", "RFC 5321, 5.1", domain, fmt.Sprintf("%d MX more were not looked at", j.mxLeft), "Publish fewer MX records.")
	}
	j.judgeUnused()
}

func coveredText(p policygen.Policy) string {
	if p.Mode == "" {
		return ""
	}
	return "listed in the policy, "
}

// harm is how bad it is that senders which honour the policy would not deliver to an MX.
func (j *judgement) harm() Severity {
	switch j.policy.Mode {
	case policygen.Enforce:
		return Fault
	case policygen.None:
		return Info
	default: // testing, or no policy yet
		return Warning
	}
}

func (j *judgement) judgeCovered(p probe) bool {
	if p.Covered || j.policy.Mode == "" || j.policy.Mode == policygen.None {
		return true
	}
	message := "the policy does not list this MX, so senders do not deliver to it"
	if j.policy.Mode == policygen.Testing {
		message = "the policy does not list this MX; with mode enforce senders would not deliver to it"
	}
	if p.Listed {
		message += " (Postfix does: the certificate carries a listed name)"
	}
	j.say(j.harm(), "mx-not-covered", sectionMX, p.host, message, "Add it to the policy, or take the MX record out of DNS.")
	return false
}

// judgeProbe says whether a sender would deliver over TLS.
func (j *judgement) judgeProbe(p probe, cert *Certificate) bool {
	if len(p.Addresses.Chain) > 0 {
		j.say(Warning, "mx-cname", "RFC 2181, 10.3", p.host, "the MX is a CNAME to "+chainText(p.Addresses.Chain),
			"Name the target in the MX record itself.")
	}
	if p.failed == nil {
		j.judgeCertificateTime(p.host, cert, sectionMTLS)
		return true
	}
	why := p.failed.Err.Error()
	switch p.failed.Step {
	case StepResolve:
		j.say(Warning, "mx-lookup", sectionMX, p.host, "the name servers gave no answer: "+why, "Ask again later.")
	case StepAddress:
		j.say(j.harm(), "mx-missing", "RFC 5321, 5.1", p.host, "the MX has no address: "+why, "Correct the MX record.")
	case StepConnect:
		j.judgeUnreachable(p)
	case StepSTARTTLS:
		j.say(j.harm(), "mx-starttls", sectionMTLS, p.host, "no TLS: "+clean(why), "Have the mail server offer STARTTLS.")
	case StepTLS:
		j.say(j.harm(), "mx-tls", sectionMTLS, p.host, "the TLS handshake fails: "+clean(why), "Have the mail server speak TLS 1.2 or newer.")
	case StepCertificate:
		j.judgeBadCertificate(j.harm(), "mx-certificate-", sectionMTLS, p.host, p.failed.Err)
	default:
		j.say(Warning, "mx-smtp", "RFC 5321, 3.1", p.host, "the mail server does not talk to us, so its TLS is not proven: "+clean(why),
			"Some mail servers turn unknown clients away: check from a machine with a public name.")
	}
	return false
}

// judgeUnreachable: a closed port is the MX's, silence may be a firewall on our side.
func (j *judgement) judgeUnreachable(p probe) {
	if errors.Is(p.failed, ErrPrivate) {
		j.say(Warning, "mx-private", sectionMTLS, p.host, "the MX was not looked at: "+p.failed.Err.Error(), "Give the MX a public address.")
		return
	}
	if p.failed.Refused() {
		j.say(j.harm(), "mx-refused", "RFC 5321, 5.1", p.host, "nobody listens at "+p.Addr, "Start the mail server, or take the MX record out of DNS.")
		return
	}
	j.say(Warning, "mx-unreachable", sectionMTLS, p.host,
		fmt.Sprintf("no connection to %s, so its TLS is not proven: %v", p.Addr, p.failed.Err),
		"Many networks block outgoing port 25: check from a mail server.")
}

// judgeUnused finds patterns that no MX matches. That is right during a change, and worth a look otherwise.
func (j *judgement) judgeUnused() {
	unused := slices.DeleteFunc(slices.Clone(j.policy.MX), func(pattern string) bool {
		return slices.ContainsFunc(j.mx, func(p probe) bool { return policygen.Match(pattern, p.host) })
	})
	const most = 5
	switch n := len(unused); {
	case n > most:
		unused = append(unused[:most:most], fmt.Sprintf("and %d more", n-most))
	case n == 0:
		return
	}
	j.say(Info, "mx-unused", sectionMX, string(j.name), "no MX of the domain matches what the policy lists: "+strings.Join(unused, ", "), "")
}

// judgeBadCertificate adds to prefix what is wrong: expired, name, untrusted, invalid.
func (j *judgement) judgeBadCertificate(severity Severity, prefix, section, host string, err error) {
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var unknown x509.UnknownAuthorityError
	kind, advice := "invalid", "Obtain a certificate from a public CA."
	switch {
	case errors.As(err, &name):
		kind, advice = "name", "Obtain a certificate for "+host+"."
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		kind, advice = "expired", "Renew the certificate, and see why that did not happen by itself."
	case errors.As(err, &unknown):
		kind, advice = "untrusted", "Obtain a certificate from a public CA, and send its intermediates along."
	}
	why := err
	var verification *tls.CertificateVerificationError
	if errors.As(err, &verification) {
		why = verification.Err
	}
	j.say(severity, prefix+kind, section, host, "the certificate is not valid: "+why.Error(), advice)
}

// judgeCertificateTime warns when less than a sixth of the lifetime is left: half of the time that a client which renews
// after two thirds has for it.
func (j *judgement) judgeCertificateTime(host string, cert *Certificate, section string) {
	left := cert.NotAfter.Sub(j.now)
	switch {
	case left < cert.NotAfter.Sub(cert.NotBefore)/6:
		j.say(Warning, "certificate-expires-soon", section, host,
			fmt.Sprintf("the certificate expires in %s, on %s", durationText(left), cert.NotAfter.Format(time.DateOnly)),
			"See why it was not renewed yet.")
	case host == j.name.PolicyHost():
		j.say(OK, "certificate", section, host, "the certificate is valid for "+durationText(left), "")
	}
}
