package sender_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/stspub/stspub/internal/sender"
)

func TestGuardLetsPublicAddressesThrough(t *testing.T) {
	t.Parallel()
	var g sender.Guard
	lets := func(addrs ...string) {
		t.Helper()
		for _, a := range addrs {
			if err := g.Lets(t.Context(), net.JoinHostPort(a, "443")); err != nil {
				t.Errorf("%s: %v, want it let through", a, err)
			}
		}
	}
	refuses := func(addrs ...string) {
		t.Helper()
		for _, a := range addrs {
			if err := g.Lets(t.Context(), net.JoinHostPort(a, "443")); !errors.Is(err, sender.ErrPrivate) {
				t.Errorf("%s: %v, want ErrPrivate", a, err)
			}
		}
	}
	// One on each side of each border.
	lets("1.0.0.0", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0", "169.253.255.255",
		"169.255.0.0", "172.15.255.255", "172.32.0.0", "192.0.1.0", "192.0.3.0", "192.167.255.255", "192.169.0.0", "198.17.255.255",
		"198.20.0.0", "203.0.112.255", "203.0.114.0", "223.255.255.255")
	refuses("0.0.0.0", "0.255.255.255", "10.0.0.0", "10.255.255.255", "100.64.0.0", "100.127.255.255", "127.0.0.1", "127.255.255.255",
		"169.254.0.0", "169.254.169.254", "172.16.0.0", "172.31.255.255", "192.0.0.8", "192.0.2.1", "192.88.99.1", "192.168.0.0",
		"192.168.255.255", "198.18.0.0", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "240.0.0.1", "255.255.255.255")
	lets("2000::1", "2001:200::1", "2003::1", "2600::1", "2a00:1450:4001:801::200e", "3ffe:ffff::1", "64:ff9b::8.8.8.8", "::ffff:8.8.8.8")
	refuses("::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b:1::1",
		"100::1", "2001::1", "2001:1ff::1", "2001:db8::1", "2002:7f00:1::1", "3fff::1", "4000::1", "5f00::1", "fc00::1", "fd00::25",
		"fe80::1", "fe80::1%lo", "fec0::1", "ff02::1")
}

// Both ways: without leave nobody is knocked at, with it the connection stands.
func TestGuard(t *testing.T) {
	t.Parallel()
	node := listen(t, "127.0.0.1:0").Addr().String()
	other := listen(t, "127.0.0.1:0").Addr().String()
	local := netip.MustParseAddr("127.0.0.1")
	own := func(addrs ...netip.Addr) func(context.Context) ([]netip.Addr, error) {
		return func(context.Context) ([]netip.Addr, error) { return addrs, nil }
	}
	for _, c := range []struct {
		name        string
		guard       sender.Guard
		node, other bool // let through
	}{
		{"without leave", sender.Guard{}, false, false},
		{"its network", sender.Guard{Private: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/30")}}, true, true},
		{"another network", sender.Guard{Private: []netip.Prefix{netip.MustParsePrefix("127.0.0.4/30")}}, false, false},
		{"a listener of ours", sender.Guard{Node: netip.MustParseAddrPort(node)}, true, false},
		{"our address", sender.Guard{Own: own(netip.MustParseAddr("192.0.2.1"), local)}, true, true},
		{"another address is ours", sender.Guard{Own: own(netip.MustParseAddr("127.0.0.2"))}, false, false},
	} {
		for addr, want := range map[string]bool{node: c.node, other: c.other} {
			conn, err := c.guard.Dial(t.Context(), "tcp", addr)
			if err == nil {
				conn.Close()
			}
			if (err == nil) != want || !want && !errors.Is(err, sender.ErrPrivate) {
				t.Errorf("%s: Dial(%s) = %v, want a connection: %v", c.name, addr, err, want)
			}
		}
	}

	unknown := sender.Guard{Own: func(context.Context) ([]netip.Addr, error) { return nil, errors.New("no name server answers") }}
	_, err := unknown.Dial(t.Context(), "tcp", other)
	if !errors.Is(err, sender.ErrPrivate) || !strings.Contains(err.Error(), "no name server answers") {
		t.Errorf("Dial where our addresses are not known = %v, want ErrPrivate and why", err)
	}
	if err := unknown.Lets(t.Context(), "8.8.8.8:25"); err != nil {
		t.Errorf("a public address where ours are not known: %v", err)
	}
}

// A domain's DNS cannot have us connect to what only our network reaches, neither for its policy nor for its MX.
func TestCheckStaysOutside(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	knocked := false
	w.handler = func(http.ResponseWriter, *http.Request) { knocked = true }
	client := w.start(t)
	client.Dial = new(sender.Guard).Dial
	report := client.Check(t.Context(), domain)
	const why = "127.0.0.1 is no address of the public Internet, so it is not connected to; if it is meant, add it to allow_private in [check]"
	var found []string
	for _, f := range report.Findings {
		if strings.Contains(f.Message, why) {
			found = append(found, f.Code)
		}
	}
	if len(found) < 2 || found[len(found)-1] != "mx-private" || knocked {
		t.Errorf("findings that say so: %q, policy host asked: %v, want one of the policy, and mx-private; all: %+v", found, knocked, report.Findings)
	}
	_, err := client.FetchPolicy(t.Context(), domain)
	if step := stepOf(t, err); step.Step != sender.StepConnect || !errors.Is(err, sender.ErrPrivate) {
		t.Errorf("FetchPolicy = %v, want step connect and ErrPrivate", err)
	}
	client = newWorld(t).start(t)
	client.Dial = (&sender.Guard{Private: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}).Dial
	if report := client.Check(t.Context(), domain); !report.OK() {
		t.Errorf("with leave: %+v", report.Findings)
	}
}

func TestHome(t *testing.T) {
	t.Parallel()
	addrs := func(all ...string) []netip.Addr {
		var out []netip.Addr
		for _, a := range all {
			out = append(out, netip.MustParseAddr(a))
		}
		return out
	}
	home := sender.Home{Name: "sts.provider.test", Addrs: addrs("192.0.2.1", "2001:db8::1")}
	for _, c := range []struct {
		chain []string
		addrs []netip.Addr
		want  bool
	}{
		{nil, nil, false},
		{nil, addrs("192.0.2.1"), true},
		{nil, addrs("192.0.2.1", "2001:db8::1"), true},
		{nil, addrs("192.0.2.1", "192.0.2.2"), false},
		{[]string{"sts.provider.test"}, nil, true},
		{[]string{"default.sts.provider.test"}, addrs("192.0.2.7"), true},
		{[]string{"sts.customer.test", "sts.provider.test"}, addrs("192.0.2.7"), true},
		{[]string{"other.provider.test"}, addrs("192.0.2.7"), false},
		{[]string{"other.provider.test"}, addrs("192.0.2.1"), true},
		{[]string{"notsts.provider.test", "x.sts.provider.test"}, nil, false},
	} {
		if got := home.Leads(sender.Addresses{Chain: c.chain, Addrs: c.addrs}); got != c.want {
			t.Errorf("Leads(%q, %v) = %v, want %v", c.chain, c.addrs, got, c.want)
		}
	}
	if home.Is("b.sts.provider.test") {
		t.Error("the target of a tenant is that of all")
	}
	home.Target = "b.sts.provider.test"
	for target, want := range map[string]bool{
		"b.sts.provider.test": true, "sts.provider.test": true, "c.sts.provider.test": false, "x.b.sts.provider.test": false, "": false,
	} {
		if home.Is(target) != want {
			t.Errorf("Is(%q) = %v for a tenant, want %v", target, !want, want)
		}
	}
}

// TestGuardClosed: an address may be public and our own, and who listens there may trust it.
func TestGuardClosed(t *testing.T) {
	t.Parallel()
	g := sender.Guard{
		Private: []netip.Prefix{netip.MustParsePrefix("9.9.9.9/32")},
		Closed: func(context.Context) ([]netip.Addr, error) {
			return []netip.Addr{netip.MustParseAddr("8.8.8.8"), netip.MustParseAddr("9.9.9.9"), netip.MustParseAddr("2600::1")}, nil
		},
	}
	for addr, want := range map[string]error{
		"8.8.8.8": sender.ErrOurs, "::ffff:8.8.8.8": sender.ErrOurs, "64:ff9b::8.8.8.8": sender.ErrOurs, "2600::1": sender.ErrOurs,
		"8.8.4.4": nil, "2600::2": nil, "9.9.9.9": nil, "10.0.0.1": sender.ErrPrivate,
	} {
		if err := g.Lets(t.Context(), net.JoinHostPort(addr, "53")); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", addr, err, want)
		}
	}
	g.Closed = func(context.Context) ([]netip.Addr, error) { return nil, errors.New("no name server answers") }
	if err := g.Lets(t.Context(), "8.8.4.4:53"); err == nil || !strings.Contains(err.Error(), "no name server answers") {
		t.Errorf("while our own addresses are not known: %v", err)
	}
}
