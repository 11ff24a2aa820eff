package sender

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/stspub/stspub/internal/policygen"
)

// slowTTL is from when on senders notice a new policy late because of the record's TTL.
const slowTTL = 24 * time.Hour

const (
	sectionRecord     = "RFC 8461, 3.1"
	sectionDelegation = "RFC 8461, 8.2"
)

// judgeRecord is about the TXT record, which a sender asks for first.
func (j *judgement) judgeRecord() {
	owner := j.name.RecordName()
	all := texts(j.record)
	r := Record{Name: owner, Chain: list(j.record.Chain), TXT: all, TTL: Seconds(j.record.TTL)}
	defer func() { j.report.Record = r }()

	if j.recordErr != nil {
		j.say(Fault, "record-lookup", sectionRecord, owner, "the name servers gave no answer: "+j.recordErr.Error(),
			"Ask again later; if it stays, look at the name servers of the zone, and at DNSSEC.")
		return
	}
	if len(r.Chain) > 0 && len(all) > 0 {
		j.say(Info, "record-chain", sectionDelegation, owner, "is a CNAME to "+chainText(r.Chain), "")
	}
	ours := slices.DeleteFunc(slices.Clone(all), func(txt string) bool { return !policygen.IsSTSv1(txt) })
	switch {
	case len(all) == 0 && len(r.Chain) > 0:
		j.say(Fault, "record-dangling", sectionDelegation, owner,
			fmt.Sprintf("is a CNAME to %s, where there is no TXT record", chainText(r.Chain)),
			"Have the TXT record published at the target, or correct the CNAME.")
	case len(all) == 0:
		j.say(Fault, "record-missing", sectionRecord, owner, "there is no TXT record, so senders look for no policy",
			`Publish one TXT record "v=STSv1; id=…;" once the policy can be fetched.`)
	case len(ours) == 0:
		j.say(Fault, "record-missing", sectionRecord, owner,
			fmt.Sprintf("no TXT record begins with v=STSv1; there is %q", all[0]),
			`Publish one TXT record "v=STSv1; id=…;" there, and remove what does not belong.`)
	case len(ours) > 1:
		j.say(Fault, "record-several", sectionRecord, owner,
			fmt.Sprintf("%d records begin with v=STSv1: to senders that is as good as none", len(ours)),
			"Remove all but the current one.")
	default:
		r.ID = j.judgeText(owner, ours[0])
	}
	j.judgeNeighbours(owner, len(all)-len(ours), len(ours))
}

// judgeText judges the only STSv1 record and returns its id.
func (j *judgement) judgeText(owner, txt string) string {
	id, err := policygen.ParseRecord(txt)
	if err != nil {
		j.say(Fault, "record-malformed", sectionRecord, owner, fmt.Sprintf("%q is malformed: %v", txt, err),
			`Write it as "v=STSv1; id=20260131120000;": the id has 1 to 32 letters and digits.`)
		return ""
	}
	j.say(OK, "record", sectionRecord, owner, "one STSv1 record, id "+id, "")
	if !strings.HasPrefix(txt, "v=STSv1;") {
		j.say(Warning, "record-form", sectionRecord, owner,
			fmt.Sprintf("%q does not begin with the eight characters v=STSv1; which some senders look for", txt),
			"Leave out the space before the first semicolon.")
	}
	for _, rr := range j.record.RRs {
		if t, ok := rr.(*dns.TXT); ok && len(t.Txt) > 1 && strings.Join(t.Txt, "") == txt {
			j.say(Warning, "record-split", sectionRecord, owner,
				fmt.Sprintf("the record is in %d character-strings, which some senders do not join", len(t.Txt)),
				"Write the value in one string.")
		}
	}
	if j.record.TTL > slowTTL {
		j.say(Warning, "record-ttl", sectionRecord, owner,
			fmt.Sprintf("the TTL is %s: for so long senders do not see a new policy", durationText(j.record.TTL)),
			"Lower it to 300 seconds or so.")
	}
	return id
}

func (j *judgement) judgeNeighbours(owner string, strangers, ours int) {
	if strangers > 0 && ours > 0 {
		j.say(Warning, "record-neighbour", sectionRecord, owner,
			fmt.Sprintf("%s that %s no STSv1: some senders then see no policy", count(strangers, "TXT record"), are(strangers)),
			"Remove what does not belong at this name; a wildcard TXT counts as well.")
	}
}

func chainText(chain []string) string { return strings.Join(chain, " → ") }

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func are(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}
