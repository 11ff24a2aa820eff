package sender

import "context"

// ServersOf is SystemServers for a file of the test's.
var ServersOf = serversOf

// Lets says whether a guard would let a connection to "ADDR:PORT" be opened; no packet is sent.
func (g *Guard) Lets(ctx context.Context, address string) error {
	return g.control(ctx, "tcp", address, nil)
}
