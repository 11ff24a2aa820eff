package policygen_test

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"github.com/stspub/stspub/internal/policygen"
)

// A domain publishes a policy and, once the policy can be fetched, the record that announces it.
func Example() {
	name, err := policygen.ParseName("Bücher.example")
	if err != nil {
		fmt.Println(err)
		return
	}
	policy := policygen.Policy{
		Mode:   policygen.Enforce,
		MaxAge: 14 * 24 * 60 * 60,
		MX:     []string{"mx1.example.net", "*.eu.mx.example.net"},
	}
	if err := policy.Validate(); err != nil {
		fmt.Println(err)
		return
	}
	random := bytes.NewReader([]byte{0x5e, 0xed, 0x0f, 0x1d}) // crypto/rand.Reader outside of examples
	id, err := policygen.NewID(time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC), random)
	if err != nil {
		fmt.Println(err)
		return
	}

	fmt.Printf("https://%s/.well-known/mta-sts.txt\n", name.PolicyHost())
	fmt.Println(strings.ReplaceAll(policy.Text(), "\r\n", "\n"))
	fmt.Printf("%s. TXT %q\n", name.RecordName(), policygen.RecordText(id))
	// Output:
	// https://mta-sts.xn--bcher-kva.example/.well-known/mta-sts.txt
	// version: STSv1
	// mode: enforce
	// max_age: 1209600
	// mx: mx1.example.net
	// mx: *.eu.mx.example.net
	//
	// _mta-sts.xn--bcher-kva.example. TXT "v=STSv1; id=202611211200005eed0f1d;"
}

func ExampleParseName() {
	for _, raw := range []string{"Bücher.example.", "github.io", "co.uk", "my_shop.example"} {
		name, err := policygen.ParseName(raw)
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(name)
	}
	// Output:
	// xn--bcher-kva.example
	// github.io
	// domain "co.uk": is a public suffix, below which a registry hands out names; write one of those
	// domain "my_shop.example": has an underscore, which no host name may have
}

func ExampleParsePattern() {
	for _, raw := range []string{"*.MX.example.com", "mx.bücher.example", "*.*.example.com"} {
		pattern, changed, err := policygen.ParsePattern(raw)
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(pattern, changed)
	}
	// Output:
	// *.mx.example.com false
	// mx.xn--bcher-kva.example true
	// mx "*.*.example.com": a wildcard is only the whole first label, once, as in *.example.com (RFC 8461, Section 4.1)
}

// A sender reads a policy, and keeps to the MX hosts that it covers.
func ExamplePolicy_Covers() {
	policy, err := policygen.ParsePolicy([]byte("version: STSv1\nmode: enforce\nmax_age: 604800\nmx: *.mail.example\n"))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, host := range []string{"mx1.mail.example.", "mail.example.", "mx1.eu.mail.example."} {
		fmt.Println(host, policy.Covers(host))
	}
	// Output:
	// mx1.mail.example. true
	// mail.example. false
	// mx1.eu.mail.example. false
}

func ExampleParsePolicy_mistakes() {
	_, err := policygen.ParsePolicy([]byte("version: STSv1\nmode: on\nmax_age: 2w\n\nmx: mx.example.com.\n"))
	fmt.Println(err)
	// Output:
	// parse policy: line 2: mode "on": is no mode; write "enforce", "testing" or "none"
	// parse policy: line 3: max_age "2w": is no number of seconds; 1 to 10 digits
	// parse policy: line 4: is blank, which some senders refuse
	// parse policy: line 5: mx "mx.example.com.": has a trailing dot; leave it out
}

func ExampleParseRecord() {
	for _, txt := range []string{"v=STSv1; id=20160831085700Z;", "v=STSv1; id=test-123", "v=spf1 -all"} {
		id, err := policygen.ParseRecord(txt)
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(id)
	}
	// Output:
	// 20160831085700Z
	// id "test-123": has other characters than letters and digits
	// v "v=spf1 -all": does not begin with "v=STSv1;"
}
