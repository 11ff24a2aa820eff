package policygen_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/idna"

	"github.com/stspub/stspub/internal/policygen"
)

func FuzzParsePolicy(f *testing.F) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		f.Fatalf("golden files: %v, %v", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte("version:STSv1 \nmode: none\nmode: x\next: ü\nmax_age:\t0"))
	f.Add([]byte("\ufeffversion: STSv1\r\r\n\n#\nmx: *.*.x\nmax_age: 31557601"))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := policygen.ParsePolicy(text)
		if p.MaxAge < 0 || p.MaxAge > policygen.MaxAgeLimit {
			t.Fatalf("max_age %d is out of range", p.MaxAge)
		}
		if err != nil {
			if !errors.Is(err, policygen.ErrSyntax) {
				t.Fatalf("error %v is not ErrSyntax", err)
			}
			return
		}
		if _, err := policygen.ParseMode(string(p.Mode)); err != nil {
			t.Fatalf("accepted policy has %v", err)
		}
		again, err := policygen.ParsePolicy([]byte(p.Text()))
		if err != nil {
			t.Fatalf("ParsePolicy(%q): %v", p.Text(), err)
		}
		if diff := cmp.Diff(p, again); diff != "" {
			t.Fatalf("ParsePolicy(%q) (-want +got):\n%s", p.Text(), diff)
		}
	})
}

func FuzzParseRecord(f *testing.F) {
	f.Add("v=STSv1; id=20160831085700Z;")
	f.Add("v=STSv1 ;\text=a;; id=1; id=2 ")
	f.Add("v=STSv10; id=1;")
	f.Add("v=STSv1, id=1")
	f.Fuzz(func(t *testing.T, txt string) {
		id, err := policygen.ParseRecord(txt)
		if err != nil {
			if !errors.Is(err, policygen.ErrSyntax) || id != "" {
				t.Fatalf("ParseRecord() = %q, %v", id, err)
			}
			return
		}
		if !policygen.IsSTSv1(txt) {
			t.Fatal("a record that is not STSv1 was accepted")
		}
		if again, err := policygen.ParseRecord(policygen.RecordText(id)); again != id || err != nil {
			t.Fatalf("ParseRecord(%q) = %q, %v", policygen.RecordText(id), again, err)
		}
	})
}

func FuzzParseName(f *testing.F) {
	for _, raw := range []string{
		"example.com", "Bücher.example.", "xn--bcher-kva.example", "_mta-sts.x.org", "*.com", "192.0.2.1", "a。b", "faß.de", "co.uk",
	} {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		name, err := policygen.ParseName(raw)
		if err != nil {
			if !errors.Is(err, policygen.ErrSyntax) || name != "" {
				t.Fatalf("ParseName() = %q, %v", name, err)
			}
			return
		}
		wantHost(t, name.PolicyHost())
		if len(name.RecordName()) > 253 {
			t.Fatalf("RecordName() has %d octets", len(name.RecordName()))
		}
		for _, form := range []string{string(name), strings.ToUpper(string(name)), string(name) + ".", name.Unicode()} {
			if again, err := policygen.ParseName(form); again != name || err != nil {
				t.Fatalf("ParseName(%q) = %q, %v, want %q", form, again, err, name)
			}
		}
		if label := name.Label(); len(label) != 26 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz234567") != "" {
			t.Fatalf("Label() = %q", label)
		}
	})
}

func FuzzParsePattern(f *testing.F) {
	for _, raw := range []string{
		"mx.example.com", "*.example.com", "*.*.x", "mx_1.x", "MX.bücher.example", "*", "*.com", "*.github.io", "192.0.2.1", "a.b.",
	} {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		pattern, _, err := policygen.ParsePattern(raw)
		if err != nil {
			if !errors.Is(err, policygen.ErrSyntax) || pattern != "" {
				t.Fatalf("ParsePattern() = %q, %v", pattern, err)
			}
			return
		}
		wantHost(t, strings.TrimPrefix(pattern, "*."))
		if again, changed, err := policygen.ParsePattern(pattern); again != pattern || changed || err != nil {
			t.Fatalf("ParsePattern(%q) = %q, %t, %v", pattern, again, changed, err)
		}
		p := policygen.Policy{Mode: policygen.Enforce, MaxAge: 1, MX: []string{pattern}}
		if err := p.Validate(); err != nil {
			t.Fatalf("Validate() of %+v: %v", p, err)
		}
		got, err := policygen.ParsePolicy([]byte(p.Text()))
		if err != nil || !slices.Equal(got.MX, p.MX) {
			t.Fatalf("ParsePolicy(%q) = %+v, %v", p.Text(), got, err)
		}
		if host := strings.Replace(pattern, "*", "a", 1); !policygen.Match(pattern, host) {
			t.Fatalf("Match(%q, %q) = false", pattern, host)
		}
	})
}

// wantHost holds host against the rules of IDNA and of the DNS, without the mappings that ParseName builds on.
func wantHost(t *testing.T, host string) {
	t.Helper()
	strict := idna.New(idna.StrictDomainName(true), idna.ValidateLabels(true), idna.VerifyDNSLength(true))
	if got, err := strict.ToASCII(host); err != nil || got != host {
		t.Fatalf("%q is no host name: %q, %v", host, got, err)
	}
	if host != strings.ToLower(host) || !strings.Contains(host, ".") {
		t.Fatalf("%q is not in lower case, or a single label", host)
	}
}
