package policygen_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stspub/stspub/internal/policygen"
)

func TestParsePolicy(t *testing.T) {
	t.Parallel()
	mx := []string{"mx.example.com"}
	plain := policygen.Policy{Mode: policygen.Enforce, MaxAge: 86400, MX: mx}
	good := func(text string, want policygen.Policy) {
		t.Helper()
		got, err := policygen.ParsePolicy([]byte(text))
		if err != nil {
			t.Errorf("ParsePolicy(%q): %v", text, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("ParsePolicy(%q) (-want +got):\n%s", text, diff)
		}
	}

	good("version: STSv1\r\nmode: enforce\r\nmax_age: 86400\r\nmx: mx.example.com\r\n", plain)
	good("version: STSv1\nmode: enforce\nmax_age: 86400\nmx: mx.example.com\n", plain)                  // LF
	good("version: STSv1\nmode: enforce\r\nmax_age: 86400\nmx: mx.example.com\r\n", plain)              // mixed
	good("version: STSv1\r\nmode: enforce\r\nmax_age: 86400\r\nmx: mx.example.com", plain)              // no last newline
	good("version: STSv1 \nmode: enforce\t\nmax_age: 86400  \nmx: mx.example.com \t \n", plain)         // *WSP at line ends
	good("version:STSv1\nmode:enforce\nmax_age:\t86400\nmx:   mx.example.com\n", plain)                 // *WSP after the colon
	good("mx: mx.example.com\nmax_age: 86400\nmode: enforce\nversion: STSv1\n", plain)                  // any order
	good("version: STSv1\nmode: enforce\nmax_age: 86400\nmx: MX.Example.com\n", plain)                  // case of hosts
	good("version: STSv1\nmode: enforce\nmax_age: 0000086400\nmx: mx.example.com\n", plain)             // 10 digits
	good("version: STSv1\nmode: enforce\nmax_age: 86400\nmx: mx.example.com\nx-1.a_b: ü : =;\n", plain) // extension
	good("version: STSv1\nMode: none\nmode: enforce\nmax_age: 86400\nmx: mx.example.com\n", plain)      // unknown: keys have case
	good("version: STSv1\nmode: enforce\nmode: none\nmax_age: 86400\nmax_age: x\nversion: STSv2\nmx: mx.example.com\n",
		plain) // of two the first counts, and the second is not looked at
	good("version: STSv1\nmode: none\nmax_age: 0\n", policygen.Policy{Mode: policygen.None}) // mode none needs no mx
	good("version: STSv1\nmode: testing\nmax_age: 31557600\nmx: *.b.example\nmx: a.example\n",
		policygen.Policy{Mode: policygen.Testing, MaxAge: 31557600, MX: []string{"*.b.example", "a.example"}})
	good("version: STSv1\nmode: enforce\nmax_age: 86400\nmx: *.com\nmx: mx\n", // unwise, but well-formed
		policygen.Policy{Mode: policygen.Enforce, MaxAge: 86400, MX: []string{"*.com", "mx"}})
}

func TestParsePolicyBad(t *testing.T) {
	t.Parallel()
	bad := func(text string, want ...string) {
		t.Helper()
		got, err := policygen.ParsePolicy([]byte(text))
		if err == nil || !errors.Is(err, policygen.ErrSyntax) {
			t.Errorf("ParsePolicy(%q) = %+v, %v, want ErrSyntax", text, got, err)
			return
		}
		for i := range want {
			want[i] = "parse policy: " + want[i]
		}
		if diff := cmp.Diff(want, strings.Split(err.Error(), "\n")); diff != "" {
			t.Errorf("ParsePolicy(%q) (-want +got):\n%s", text, diff)
		}
	}
	const head = "version: STSv1\nmode: enforce\nmax_age: 86400\n"
	const mx = "mx: mx.example.com\n"

	bad("", `version: is missing; keys are in lower case`, `mode: is missing; keys are in lower case`,
		`max_age: is missing; keys are in lower case`, `mx: is missing; only mode none does without`)
	bad("mode: enforce\nmax_age: 86400\n"+mx, `version: is missing; keys are in lower case`)
	bad("version: STSv1\nmax_age: 86400\n"+mx, `mode: is missing; keys are in lower case`)
	bad("version: STSv1\nmode: enforce\n"+mx, `max_age: is missing; keys are in lower case`)
	bad("Version: STSv1\nmode: enforce\nmax_age: 86400\n"+mx, `version: is missing; keys are in lower case`)
	bad(head, `mx: is missing; only mode none does without`)
	bad("version: STSv2\nmode: enforce\nmax_age: 86400\n"+mx, `line 1: version "STSv2": is unknown; there is STSv1 only`)
	bad("version: stsv1\nmode: enforce\nmax_age: 86400\n"+mx, `line 1: version "stsv1": is unknown; there is STSv1 only`)
	bad("version: STSv1\nmode: Enforce\nmax_age: 86400\n"+mx,
		`line 2: mode "Enforce": is no mode; write "enforce", "testing" or "none"`)
	bad("version: STSv1\nmode: enforce\nmax_age: 1d\n"+mx, `line 3: max_age "1d": is no number of seconds; 1 to 10 digits`)
	bad("version: STSv1\nmode: enforce\nmax_age: -1\n"+mx, `line 3: max_age "-1": is no number of seconds; 1 to 10 digits`)
	bad("version: STSv1\nmode: enforce\nmax_age: +1\n"+mx, `line 3: max_age "+1": is no number of seconds; 1 to 10 digits`)
	bad("version: STSv1\nmode: enforce\nmax_age: 31557601\n"+mx, `line 3: max_age "31557601": is more than 31557600 seconds`)
	bad("version: STSv1\nmode: enforce\nmax_age: 9999999999\n"+mx, `line 3: max_age "9999999999": is more than 31557600 seconds`)
	bad("version: STSv1\nmode: enforce\nmax_age: 10000000000\n"+mx,
		`line 3: max_age "10000000000": is no number of seconds; 1 to 10 digits`)
	bad("version: STSv1\nmode: enforce\nmax_age:\n"+mx, `line 3 "max_age:": has no value`,
		`max_age: is missing; keys are in lower case`)

	bad(head+"\n"+mx, `line 4: is blank, which some senders refuse`)
	bad(head+mx+"\n", `line 5: is blank, which some senders refuse`)
	bad(head+mx+"\r\n", `line 5: is blank, which some senders refuse`)
	bad(head+mx+" \n", `line 5 " ": is blank, which some senders refuse`)
	bad(head+mx+"# comment\n", `line 5 "# comment": has no colon; write key: value`)
	bad(head+mx+"# my: comment\n",
		`line 5 "# my: comment": has a bad key; up to 32 letters, digits, and _ - . inside, no space around it`)
	bad("version : STSv1\nmode: enforce\nmax_age: 86400\n"+mx,
		`line 1 "version : STSv1": has a bad key; up to 32 letters, digits, and _ - . inside, no space around it`,
		`version: is missing; keys are in lower case`)
	bad(" version: STSv1\nmode: none\nmax_age: 86400\n",
		`line 1 " version: STSv1": has a bad key; up to 32 letters, digits, and _ - . inside, no space around it`,
		`version: is missing; keys are in lower case`)
	bad("\ufeffversion: STSv1\nmode: none\nmax_age: 86400\n",
		`line 1 "\ufeffversion: STSv1": begins with a byte order mark`, `version: is missing; keys are in lower case`)
	bad(head+mx+"ext: \x80\n", `line 5 "ext: \x80": is not UTF-8`)
	bad(head+mx+"ext: a\x00b\n", `line 5 "ext: a\x00b": has a control character`)
	bad(head+mx+"ext: a\x7fb\n", `line 5 "ext: a\x7fb": has a control character`)
	bad("version: STSv1\rmode: none\rmax_age: 86400\r", // CR alone
		`line 1 "version: STSv1\rmode: none\rmax_age: 86400": has a control character`,
		`version: is missing; keys are in lower case`, `mode: is missing; keys are in lower case`,
		`max_age: is missing; keys are in lower case`, `mx: is missing; only mode none does without`)
	bad(head+"mx: mx_1.example.com\n", `line 4: mx "mx_1.example.com": has an underscore, which no host name may have`)
	bad(head+"mx: mx.example.com.\n", `line 4: mx "mx.example.com.": has a trailing dot; leave it out`)
	bad(head+"mx: bücher.example\n", `line 4: mx "bücher.example": has 'ü' in it; a host name has letters, digits and hyphens`)
	bad(head+"mx: *.*.example\n", `line 4: mx "*.*.example": has '*' in it; a host name has letters, digits and hyphens`)
	bad(head+"mx: *\n", `line 4: mx "*": has '*' in it; a host name has letters, digits and hyphens`)
	bad(head+"mx: *.\n", `line 4: mx "*.": has an empty label; one dot between two labels`)
	bad(head+"mx: 192.0.2.1\n", `line 4: mx "192.0.2.1": ends in a number, as no domain name does`)
	bad(head+"mx: a.example b.example\n",
		`line 4: mx "a.example b.example": has ' ' in it; a host name has letters, digits and hyphens`)
	bad(head+"mx: a.example # old\nmx: b..example\n", // every line, in order
		`line 4: mx "a.example # old": has ' ' in it; a host name has letters, digits and hyphens`,
		`line 5: mx "b..example": has an empty label; one dot between two labels`)
}

// RFC 8461, Section 3.3: senders read no more than 64 KiB.
func TestParsePolicyLimits(t *testing.T) {
	t.Parallel()
	const head = "version: STSv1\nmode: none\nmax_age: 86400\nlong: "
	text := []byte(head + strings.Repeat("a", 64<<10-len(head)))
	if _, err := policygen.ParsePolicy(text); err != nil {
		t.Errorf("ParsePolicy of 64 KiB: %v", err)
	}
	_, err := policygen.ParsePolicy(append(text, 'a'))
	if want := "parse policy: invalid syntax: longer than 64 KiB (RFC 8461, Section 3.3)"; err == nil || err.Error() != want {
		t.Errorf("ParsePolicy of 64 KiB and one octet: %v, want %s", err, want)
	}

	_, err = policygen.ParsePolicy([]byte(strings.Repeat("<html>\n", 5000)))
	if err == nil || strings.Count(err.Error(), "\n") != 9 {
		t.Errorf("ParsePolicy of a web page: %v, want 10 lines", err)
	}
}

// A bad foreign policy may live on in lenient senders, so its max_age must not be lost.
func TestParsePolicyReturnsWhatCouldBeRead(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]policygen.Policy{
		"version: STSv1\n\nmode: enforce\nmax_age: 604800\nmx: mx_1.a.example\nmx: b.example\n": {
			Mode: policygen.Enforce, MaxAge: 604800, MX: []string{"b.example"},
		},
		"version: STSv1\nmode: enforce\nmax_age: 63115200\n": {Mode: policygen.Enforce, MaxAge: policygen.MaxAgeLimit},
		"ext: \x80\nmax_age: 5\n":                            {MaxAge: 5},
	} {
		got, err := policygen.ParsePolicy([]byte(text))
		if err == nil {
			t.Errorf("ParsePolicy(%q) has no error", text)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("ParsePolicy(%q) (-want +got):\n%s", text, diff)
		}
	}
}
