package dnsupdate

// SetPort has an Observer ask name servers at another port than 53, for tests without privileges.
func (o *Observer) SetPort(port uint16) { o.port = port }
