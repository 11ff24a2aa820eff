// Package lab is a small internet in the process, for `stspub dev` and for tests: a certification authority that
// speaks ACME (RFC 8555), and an authoritative DNS server that takes dynamic updates (RFC 2136).
//
// Both listen on loopback only, on a port that is given or, with port 0, chosen. They validate, sign and answer as the
// real ones do, so what works here works outside; what they lack is rate limits, DNSSEC and zone transfers.
// Nothing in this package is meant to be reached by others.
package lab
