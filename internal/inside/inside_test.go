package inside_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/stspub/stspub/internal/inside"
)

func TestHide(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                                       "",
		"no address":                             "no address",
		"10.0.0.5":                               "@",
		"ask name server 10.0.0.5:53: no answer": "ask name server @:53: no answer",
		"seen 10.0.0.5, 8.8.8.8.":                "seen @, 8.8.8.8.",
		"at 127.0.0.1.":                          "at @.",
		"at 192.168.1.7: refused":                "at @: refused",
		"10.0.0.1:1234->10.0.0.2:443":            "@:1234->@:443",
		"at [fd00::1]:443: refused":              "at @:443: refused",
		"::1, ::ffff:10.0.0.1 and fe80::1":       "@, @ and @",
		"from fe80::1%eth0":                      "from @%eth0",
		"64:ff9b::10.0.0.1":                      "@",
		"at [2600::1]:443":                       "at [2600::1]:443",
		"v=spf1 ip4:10.0.0.1 -all":               "v=spf1 ip4:@ -all",
		"tcp:10.0.0.1":                           "tcp:@",
		"at 15:04:05 UTC, 12:30":                 "at 15:04:05 UTC, 12:30",
		"mta-sts.abcd.example: dead:beef":        "mta-sts.abcd.example: dead:beef",
		"version 1.10.0.0.5":                     "version 1.10.0.0.5",
		"20261122114343deadbeef":                 "20261122114343deadbeef",
		"ip4:10.0.0.1:53":                        "ip4:@:53",
		"a::fool":                                "a::fool",
		"ends with colons ::":                    "ends with colons @", // the unspecified address
		"umlauts ä 10.0.0.5 ö":                   "umlauts ä @ ö",
	} {
		if got := inside.Hide(text); got != strings.ReplaceAll(want, "@", inside.Address) {
			t.Errorf("Hide(%q) = %q, want %q", text, got, want)
		}
	}
}

// FuzzHide: nothing that is an address by itself stays where it is none of the public Internet, and to hide twice is to hide
// once.
func FuzzHide(f *testing.F) {
	for _, text := range []string{"at 10.0.0.5:53: no answer", "[fd00::1]:443", "64:ff9b::10.0.0.1", "::", "1.2.3.4 and 8.8.8.8."} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		hidden := inside.Hide(text)
		if again := inside.Hide(hidden); again != hidden {
			t.Errorf("Hide(%q) = %q, and again %q", text, hidden, again)
		}
		for word := range strings.FieldsSeq(hidden) {
			addr, err := netip.ParseAddr(word)
			if err != nil {
				port, perr := netip.ParseAddrPort(word)
				addr, err = port.Addr(), perr
			}
			if err == nil && addr.Zone() == "" && inside.Is(addr) {
				t.Errorf("Hide(%q) = %q tells %s", text, hidden, addr)
			}
		}
	})
}
