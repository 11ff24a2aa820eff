package dnsupdate

// Pace returns how many changes an account makes in a second at most, by the limit that it keeps to its provider; 0: that
// is not known.
func Pace(a Account) float64 {
	g, ok := a.(*guard)
	if !ok {
		return 0
	}
	requests := 2.0 // a look, and an update that compares and swaps
	if g.provider == "cloudflare" {
		requests = 3 // a look, a write, and another look
	}
	return float64(g.limit.Limit()) / requests
}
