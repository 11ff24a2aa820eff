package dnsupdate

import (
	"golang.org/x/time/rate"

	"github.com/stspub/stspub/internal/config"
)

// Unlimit takes the rate limit off an account that Open made; TestRates holds the limits against the providers' own.
func Unlimit(a Account) { a.(*guard).limit.SetLimit(rate.Inf) }

// OVHSignature signs a request at a time, in seconds since 1970.
func OVHSignature(a config.Account, method, target, body string, at int64) string {
	return ovhSignature(a, method, target, []byte(body), at)
}
