package dnsupdate

import "context"

// Unusable returns an account that writes nothing, in the place of one that cannot be opened: whoever wants to write is told
// why, which says what to do.
func Unusable(name, provider string, why error) Account { return &unusable{name, provider, why} }

type unusable struct {
	name, provider string
	why            error
}

// Name returns the account's name.
func (u *unusable) Name() string { return u.name }

// Provider returns its provider.
func (u *unusable) Provider() string { return u.provider }

// Rate is none.
func (u *unusable) Rate() Rate { return Rate{Batch: 1} }

// Apply writes nothing.
func (u *unusable) Apply(_ context.Context, c Change) error {
	return &Error{Account: u.name, Provider: u.provider, Op: "read", Zone: c.Zone, Name: c.Name, Kind: KindAuth, Err: u.why}
}
