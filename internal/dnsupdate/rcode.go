package dnsupdate

import (
	"errors"

	"github.com/miekg/dns"
)

// signatureFault says what is wrong with the signatures of a message and its answer. verify is what the library found.
func (r *rfc2136) signatureFault(answer *dns.Msg, verify error) error {
	tsig := answer.IsTsig()
	// Knot disowns a key that may not update, too; a question before has shown whether the key is known.
	if tsig != nil && (answer.Opcode == dns.OpcodeQuery || tsig.Error != dns.RcodeBadKey) {
		switch tsig.Error {
		case dns.RcodeBadKey:
			return faultf(KindAuth, "server %s does not know the key %q with %q", r.server, unfqdn(r.key), unfqdn(r.algorithm))
		case dns.RcodeBadSig, dns.RcodeBadTrunc:
			return faultf(KindAuth, "server %s has another secret for the key %q", r.server, unfqdn(r.key))
		case dns.RcodeBadTime:
			return faultf(KindAuth, "the clock of server %s differs by more than 5 minutes", r.server)
		}
	}
	switch {
	case answer.Rcode != dns.RcodeSuccess && answer.Rcode != dns.RcodeNameError && !prerequisite(answer.Rcode):
		return nil // refusals may come unsigned, and are told apart by the caller
	case errors.Is(verify, dns.ErrAuth), errors.Is(verify, dns.ErrSig), errors.Is(verify, dns.ErrTime), errors.Is(verify, dns.ErrSecret):
		return faultf(KindAuth, "the answer of server %s is not signed rightly: %w", r.server, verify)
	case verify != nil:
		return faultf(KindUnavailable, "malformed answer of server %s: %w", r.server, verify)
	case r.key != "" && tsig == nil:
		return faultf(KindAuth, "the answer of server %s is not signed", r.server)
	}
	return nil
}

// prerequisite says whether a code is the answer to a prerequisite that does not hold. RFC 2136, Section 2.2.
func prerequisite(rcode int) bool {
	switch rcode {
	case dns.RcodeYXDomain, dns.RcodeYXRrset, dns.RcodeNXRrset:
		return true
	}
	return false
}

// readFault says why an answer to a question is none.
func (r *rfc2136) readFault(c Change, answer *dns.Msg) error {
	switch answer.Rcode {
	case dns.RcodeSuccess, dns.RcodeNameError:
		if answer.Authoritative {
			return nil
		}
		return faultf(KindNoZone, "the server is not authoritative for %q", c.Name)
	case dns.RcodeNotAuth:
		// RFC 8945, Section 5.3.2: some servers say no more than this about a signature.
		if r.key != "" {
			return faultf(KindAuth, "server %s does not take the signature of the key %q", r.server, unfqdn(r.key))
		}
		return faultf(KindNoZone, "the server says NOTAUTH to a question")
	case dns.RcodeRefused:
		return faultf(KindNoZone, "the server says REFUSED to a question")
	case dns.RcodeServerFailure:
		return faultf(KindUnavailable, "the server says SERVFAIL")
	}
	return faultf(KindRefused, "the server says %s to a question", dns.RcodeToString[answer.Rcode])
}

// updateFault says why an update was not made. RFC 2136, Section 2.2. NOTAUTH comes from secondaries, and from Knot for
// a key that may not update: that the server knows the zone and the key was seen when it was read.
func updateFault(answer *dns.Msg) error {
	code := dns.RcodeToString[answer.Rcode]
	switch answer.Rcode {
	case dns.RcodeSuccess:
		return nil
	case dns.RcodeYXDomain, dns.RcodeYXRrset, dns.RcodeNXRrset, dns.RcodeNameError:
		return errSwapped
	case dns.RcodeNotZone:
		return faultf(KindNoZone, "the server says NOTZONE to an update")
	case dns.RcodeServerFailure:
		return faultf(KindUnavailable, "the server says SERVFAIL to an update")
	}
	return faultf(KindRefused, "the server says %s to an update", code)
}
