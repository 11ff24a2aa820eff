package sender

import (
	"errors"
	"time"

	"github.com/stspub/stspub/internal/policygen"
)

// Delivers says whether a sender that honours a policy delivers to an MX, by what [Client.ProbeMX] returned of it, and if
// not, the finding of [Client.Check] that says why. The policy lists the MX (RFC 8461, Section 4.1), and the MX answers
// STARTTLS with a certificate that is trusted, not expired, and valid for its name (Section 4.2); together that means that
// the certificate carries a name which the policy lists. What could not be proven is not delivered either.
//
// Only the certificate's names, issuer and times are looked at, so a probe may be kept without the rest.
func Delivers(p policygen.Policy, host string, probed Probed, failed error) (Finding, bool) {
	if failed == nil && probed.Certificate == nil {
		failed = errors.New("the MX was not probed")
	}
	mx := probe{Probed: probed, host: host}
	mx.Covered, mx.Listed = p.Covers(host), listed(probed.Certificate, p)
	if failed != nil && !errors.As(failed, &mx.failed) {
		mx.failed = &StepError{Host: host, Err: failed}
	}
	j := &judgement{seen: &seen{now: time.Now()}, policy: p}
	if !j.judgeCovered(mx) {
		return j.report.Findings[0], false
	}
	if !j.judgeProbe(mx, newCertificate(probed.Certificate)) {
		return j.report.Findings[len(j.report.Findings)-1], false // before it may stand what does not keep mail away
	}
	return Finding{}, true
}
