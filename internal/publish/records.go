package publish

import (
	"cmp"
	"fmt"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/store"
)

// Records is what the customer of a domain puts into DNS, as zone-file lines; hostname is the service's. What must wait is a comment that says so. For
// a shared record it is what stspub writes, all of it comments.
func Records(d store.Domain, hostname, aliasZone string) []string {
	if d.Publish == store.PublishWildcard {
		return sharedLines(d)
	}
	lines := []string{fmt.Sprintf("%s. 300 IN CNAME %s.", d.Name.PolicyHost(), Target(hostname, d.Tenant))}
	if d.Name.PolicyHost() == hostname {
		lines[0] = "; " + hostname + ". is this server's own name: its A and AAAA records stay"
	}
	record := cmp.Or(home(aliasZone, d), RecordName(aliasZone, d))
	switch {
	case d.Publish == store.PublishManual:
		lines = append(lines, manualLine(d, record))
	case d.Publish == store.PublishZone:
		lines = append(lines, fmt.Sprintf("; %s. TXT is written by stspub, once the policy is live", record))
	case !delegable(d):
		lines = append(lines,
			"; not yet: the next line only when `stspub domain show "+string(d.Name)+"` is at step delegation",
			fmt.Sprintf("; %s. 300 IN CNAME %s.", d.Name.RecordName(), record))
	default:
		lines = append(lines, fmt.Sprintf("%s. 300 IN CNAME %s.", d.Name.RecordName(), record))
	}
	lines = append(lines, reportLines(d, aliasZone)...)
	if !d.Removed.IsZero() {
		lines = append([]string{"; the domain is leaving: keep these until it is gone from `stspub domain list`"}, lines...)
	}
	return lines
}

// delegable says that the customer may set his _mta-sts CNAME, or is to keep it. While a domain that was live gets a record
// of its own, the shared one answers at its name.
func delegable(d store.Domain) bool {
	s := d.State
	if d.Publish != store.PublishShared || s.ID != "" {
		return s.ID != ""
	}
	return s.Zone != "" && (s.Detached.IsZero() || s.Step == StepAttach || !s.Checked.IsZero())
}

// sharedLines says of a shared record what it is, and what stands there.
func sharedLines(d store.Domain) []string {
	stands := "not yet"
	if d.State.ID != "" {
		stands = policygen.RecordText(d.State.ID)
	}
	return []string{
		fmt.Sprintf("; the shared record of MX set %s, which answers for all domains that have none of their own", d.MXSet),
		fmt.Sprintf("; %s. TXT is written by stspub: %s", d.Name, stands),
	}
}

// manualLine is the TXT that the customer writes, or why there is none to write now.
func manualLine(d store.Domain, record string) string {
	id := d.State.Intended
	if id == "" && !d.State.Dirty {
		id = d.State.ID
	}
	if id == "" {
		return fmt.Sprintf("; %s. TXT: not yet; its id is made once the policy is live", record)
	}
	return fmt.Sprintf("%s. 300 IN TXT %q", record, policygen.RecordText(id))
}
