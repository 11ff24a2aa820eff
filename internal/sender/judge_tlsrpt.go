package sender

import (
	"fmt"
	"slices"
	"strings"

	"github.com/stspub/stspub/internal/policygen"
)

const sectionTLSRPT = "RFC 8460, 3"

// judgeTLSRPT is about RFC 8460, which gives the domain reports of failures. Mail is delivered with and without.
func (j *judgement) judgeTLSRPT() {
	owner := j.name.ReportName()
	all := texts(j.tlsrpt)
	j.report.TLSRPT = all
	chain := chainText(j.tlsrpt.Chain)
	switch {
	case j.tlsrptErr != nil:
		j.say(Warning, "tlsrpt-lookup", sectionTLSRPT, owner, "the name servers gave no answer: "+j.tlsrptErr.Error(), "Ask again later.")
		return
	case chain != "" && len(all) == 0:
		j.say(Warning, "tlsrpt-dangling", sectionTLSRPT, owner, "is a CNAME to "+chain+", where there is no TXT record",
			"Have the TLSRPT record published at the target, or remove the CNAME.")
		return
	case chain != "":
		j.say(Info, "tlsrpt-chain", sectionTLSRPT, owner, "is a CNAME to "+chain, "")
	}
	ours := slices.DeleteFunc(slices.Clone(all), func(txt string) bool { return !policygen.IsTLSRPTv1(txt) })
	switch len(ours) {
	case 0:
		j.say(Info, "tlsrpt-missing", sectionTLSRPT, owner, "no TLSRPT record: nobody reports failures to you",
			`Publish a TXT record "v=TLSRPTv1; rua=mailto:…" to be told when senders meet a problem.`)
	case 1:
		uris, err := policygen.ParseReport(ours[0])
		if err != nil {
			j.say(Warning, "tlsrpt-malformed", sectionTLSRPT, owner, fmt.Sprintf("%q is malformed: %v", ours[0], err),
				`Write it as "v=TLSRPTv1; rua=mailto:tls-reports@example.org".`)
			return
		}
		j.say(OK, "tlsrpt", sectionTLSRPT, owner, "failures are reported to "+strings.Join(uris, ", "), "")
	default:
		j.say(Warning, "tlsrpt-several", sectionTLSRPT, owner,
			fmt.Sprintf("%d records begin with v=TLSRPTv1: senders ignore them all", len(ours)), "Remove all but one.")
	}
}
