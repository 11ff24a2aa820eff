package policygen

// Name is a policy domain: an A-label, lower case, without trailing dot, checked by [ParseName].
type Name string

// Mode is the mode of a policy. RFC 8461, Section 3.2.
type Mode string

// Policy is an MTA-STS policy. RFC 8461, Section 3.2.
type Policy struct {
	Mode   Mode
	MaxAge int // seconds
	MX     []string
}
