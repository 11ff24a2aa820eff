package daemon

import (
	"net/netip"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stspub/stspub/internal/lab"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/sender"
	"github.com/stspub/stspub/internal/store"
)

// TestOwnAddresses: what may trust us by our address is at any of these.
func TestOwnAddresses(t *testing.T) {
	t.Parallel()
	dns, err := lab.StartDNS(t.Context(), lab.DNSOptions{Zones: []lab.Zone{{Name: "provider.test", Text: "sts A 8.8.8.8\nsts AAAA 2600::1\n"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer dns.Close()
	st, err := store.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "stspub.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	d := &daemon{node: &node{address: "9.9.9.9:443"}}
	d.node.known.Store(netip.MustParseAddrPort("9.9.9.10:443"), true)
	outside := &publish.Outside{
		Client:   &sender.Client{Resolver: &sender.Resolver{Stub: map[string][]string{".": {dns.Addr}}}},
		Hostname: hostname, Addresses: []netip.Addr{netip.MustParseAddr("8.8.4.4")}, Values: st,
	}
	got, err := d.ownAddresses(outside)(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for what, addr := range map[string]string{
		"the name": "8.8.8.8", "the name, IPv6": "2600::1", "server.addresses": "8.8.4.4", "this node": "9.9.9.9", "another node": "9.9.9.10",
		"an interface": "127.0.0.1",
	} {
		if !slices.Contains(got, netip.MustParseAddr(addr)) {
			t.Errorf("%s: %s is not among %v", what, addr, got)
		}
	}
	outside = &publish.Outside{Client: outside.Client, Hostname: "nowhere.provider.test", Values: st}
	if got, err := d.ownAddresses(outside)(t.Context()); err == nil {
		t.Errorf("without a name: %v, want an error", got)
	}
}
