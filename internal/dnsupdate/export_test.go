package dnsupdate

import "golang.org/x/time/rate"

// SetPort has an Observer ask name servers at another port than 53, for tests without privileges.
func (o *Observer) SetPort(port uint16) { o.port = port }

// Unlimit takes the rate limit off an account that Open made; TestRates holds the limits against the providers' own.
func Unlimit(a Account) { a.(*guard).limit.SetLimit(rate.Inf) }
