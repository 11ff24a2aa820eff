package certs

// Advice is empty for now.
func (p *Problem) Advice() string { return "" }
