package main

import (
	"strings"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/publish"
)

func TestDomainShowTLSRPT(t *testing.T) {
	t.Parallel()
	const text = "v=TLSRPTv1; rua=mailto:tls@x.test"
	show := func(r *publish.TLSRPT) string {
		t.Helper()
		var b strings.Builder
		if err := writeStatus(&b, publish.Status{Name: "x.test", TLSRPT: r}); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	if got := show(nil); strings.Contains(got, "tlsrpt") {
		t.Errorf("show without TLSRPT = %q", got)
	}
	for _, c := range []struct {
		r    publish.TLSRPT
		want []string
	}{
		{publish.TLSRPT{Record: "_smtp._tls.x.test", Text: text}, []string{"tlsrpt", text}},
		{publish.TLSRPT{Text: text, Verified: time.Now().Add(-time.Minute)}, []string{text + "\n", "seen at every name server 1m"}},
		{publish.TLSRPT{Text: text, Problem: "somebody else's"}, []string{text + "\n", "somebody else's\n"}},
		{publish.TLSRPT{Record: "_smtp._tls.x.test"}, []string{"_smtp._tls.x.test is to go"}},
	} {
		for _, want := range c.want {
			if got := show(&c.r); !strings.Contains(got, want) {
				t.Errorf("show of %+v = %q, want %q in it", c.r, got, want)
			}
		}
	}
}
