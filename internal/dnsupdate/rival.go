package dnsupdate

import "github.com/stspub/stspub/internal/policygen"

// version is the kind of record that a change is about, of which a name may have only one: TLSRPTv1 (RFC 8460, Section 3)
// if it adds one, else STSv1. Each kind is a stranger to the other.
func (c Change) version() string {
	if policygen.IsTLSRPTv1(c.Add) {
		return "TLSRPTv1"
	}
	return "STSv1"
}

// rival says whether a value means to be a record of the kind that the change is about.
func (c Change) rival(text string) bool {
	if policygen.IsTLSRPTv1(c.Add) {
		return policygen.IsTLSRPTv1(text)
	}
	return policygen.IsSTSv1(text)
}
