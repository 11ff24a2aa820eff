package daemon

import (
	"net/netip"
	"os"
	"testing"
)

// TestHostAddress: what a host is called leads to an address that others reach, or nothing is said.
func TestHostAddress(t *testing.T) {
	t.Parallel()
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	host, ok := hostAddress(t.Context())
	addr, err := netip.ParseAddr(host)
	if ok != (err == nil) || ok && !addr.IsGlobalUnicast() {
		t.Errorf("%s leads to %q, %v", name, host, ok)
	}
}
