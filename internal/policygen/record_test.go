package policygen_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stspub/stspub/internal/policygen"
)

func TestIsSTSv1(t *testing.T) {
	t.Parallel()
	for txt, want := range map[string]bool{
		"v=STSv1; id=20260101000000;": true,
		"v=STSv1;id=1":                true,
		"v=STSv1 ; id=1":              true,  // by the grammar, though not by the text beside it
		"v=STSv1\t;id=1":              true,  // likewise
		"v=STSv1":                     true,  // broken, but meant; some senders count it
		"v=STSv1;":                    true,  // likewise
		"v=STSv1 id=1":                true,  // likewise
		"v=STSv1, id=1":               true,  // likewise
		"v=STSv10; id=1":              false, // another version
		"v=STSv1a; id=1":              false, // another version
		"v=STSv2; id=1":               false,
		"v=STSv":                      false,
		"V=STSv1; id=1":               false, // the grammar gives the case
		"v=stsv1; id=1":               false,
		" v=STSv1; id=1":              false, // does not begin with it
		"\"v=STSv1; id=1\"":           false, // quotes that a control panel took for content
		"v = STSv1; id=1":             false,
		"v=TLSRPTv1; rua=mailto:a@b":  false,
		"v=spf1 -all":                 false,
		"":                            false,
	} {
		if got := policygen.IsSTSv1(txt); got != want {
			t.Errorf("IsSTSv1(%q) = %t, want %t", txt, got, want)
		}
	}
}

func TestParseRecord(t *testing.T) {
	t.Parallel()
	good := func(txt, want string) {
		t.Helper()
		if got, err := policygen.ParseRecord(txt); got != want || err != nil {
			t.Errorf("ParseRecord(%q) = %q, %v, want %q", txt, got, err, want)
		}
	}
	bad := func(txt, field, why string) {
		t.Helper()
		got, err := policygen.ParseRecord(txt)
		wantFieldError(t, "ParseRecord", txt, got, err, field, why)
	}

	good("v=STSv1; id=20160831085700Z;", "20160831085700Z") // the example of the RFC
	good("v=STSv1; id=1;", "1")
	good("v=STSv1;id=1", "1")                                             // last semicolon is optional
	good("v=STSv1 ;\tid=1 ; ", "1")                                       // sts-field-delim
	good("v=STSv1; id=1 ", "1")                                           // trailing space, as all take it
	good("v=STSv1;; id=1;;", "1")                                         // doubled semicolons, likewise
	good("v=STSv1; id=1; id=2;", "1")                                     // of two the first counts
	good("v=STSv1; ext=a:b/c,d; id=1; x-1.a_b=~;", "1")                   // unknown fields
	good("v=STSv1; ID=2; id=1;", "1")                                     // names have case, so ID is unknown
	good("v=STSv1; id="+strings.Repeat("a", 32), strings.Repeat("a", 32)) // longest

	bad("", "v", "does not begin with")
	bad("v=spf1 -all", "v", "does not begin with")
	bad("v=STSv10; id=1;", "v", "does not begin with")
	bad("V=STSv1; id=1;", "v", "does not begin with")
	bad(" v=STSv1; id=1;", "v", "does not begin with")
	bad("id=1; v=STSv1;", "v", "does not begin with") // the version is first
	bad("v=STSv1 id=1;", "v", "no semicolon")
	bad("v=STSv1, id=1;", "v", "no semicolon")
	bad("v=STSv1", "id", "is missing")
	bad("v=STSv1;", "id", "is missing")
	bad("v=STSv1; ext=a;", "id", "is missing")
	bad("v=STSv1; ID=1;", "id", "is missing") // names have case
	bad("v=STSv1; id=;", "id", "is empty")
	bad("v=STSv1; id=test-123", "id", "other characters than letters and digits")
	bad("v=STSv1; id= 1;", "id", "other characters than letters and digits")
	bad("v=STSv1; id=1 2;", "id", "other characters than letters and digits")
	bad("v=STSv1; id=1=2;", "id", "other characters than letters and digits")
	bad("v=STSv1; id=\"1\";", "id", "other characters than letters and digits")
	bad("v=STSv1; id=ü;", "id", "other characters than letters and digits")
	bad("v=STSv1; id="+strings.Repeat("a", 33), "id", "33 characters; 1 to 32")
	bad("v=STSv1; id =1;", "field", "bad name")
	bad("v=STSv1; id", "field", "no equals sign")
	bad("v=STSv1; 1; id=1;", "field", "no equals sign")
	bad("v=STSv1; =a; id=1;", "field", "bad name")
	bad("v=STSv1; -a=a; id=1;", "field", "bad name")
	bad("v=STSv1; "+strings.Repeat("a", 33)+"=a; id=1;", "field", "bad name")
	bad("v=STSv1; a=; id=1;", "field", "bad value")
	bad("v=STSv1; a=b c; id=1;", "field", "bad value")
	bad("v=STSv1; a=b=c; id=1;", "field", "bad value")
	bad("v=STSv1; id=1; a=ü;", "field", "bad value")
	bad("v=STSv1; id=1v=STSv1; id=2;", "id", "other characters") // two records, joined by a provider
}

func TestRecordText(t *testing.T) {
	t.Parallel()
	const want = "v=STSv1; id=20261121120000deadbeef;"
	if got := policygen.RecordText("20261121120000deadbeef"); got != want {
		t.Errorf("RecordText() = %q, want %q", got, want)
	}
}

func TestNewID(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 21, 13, 4, 5, 999, time.FixedZone("CET", 3600))
	id, err := policygen.NewID(now, bytes.NewReader([]byte{0xDE, 0xAD, 0x00, 0xEF}))
	if want := "20261121120405dead00ef"; id != want || err != nil {
		t.Errorf("NewID() = %q, %v, want %q", id, err, want)
	}

	bad := func(now time.Time, random io.Reader, want string) {
		t.Helper()
		if id, err := policygen.NewID(now, random); id != "" || err == nil || err.Error() != want {
			t.Errorf("NewID(%v) = %q, %v, want %q", now, id, err, want)
		}
	}
	bad(now, bytes.NewReader([]byte{1, 2, 3}), "make policy id: read random octets: unexpected EOF")
	bad(now, iotest.ErrReader(errors.New("no entropy")), "make policy id: read random octets: no entropy")
	bad(now.AddDate(8000, 0, 0), rand.Reader, "make policy id: year 10026 has not four digits")
	bad(now.AddDate(-3000, 0, 0), rand.Reader, "make policy id: year -974 has not four digits")
}

// Ids of one second differ, are in the form of RFC 8461, tell their time, and survive the way through a record.
func TestNewIDRoundTrip(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for i := range 1000 {
		now := time.Date(2026, 2, 28, 23, 59, 59, 0, time.UTC).Add(time.Duration(i/500) * time.Second)
		id, err := policygen.NewID(now, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if seen[id] {
			t.Fatalf("NewID() = %q twice", id)
		}
		seen[id] = true
		if got, err := time.Parse("20060102150405", id[:14]); err != nil || !got.Equal(now) {
			t.Fatalf("NewID() = %q, %v, want it to begin with %v", id, err, now)
		}
		txt := policygen.RecordText(id)
		if got, err := policygen.ParseRecord(txt); got != id || err != nil || !policygen.IsSTSv1(txt) {
			t.Fatalf("ParseRecord(%q) = %q, %v, want %q", txt, got, err, id)
		}
	}
}
