package main

import (
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/stspub/stspub/internal/httpd"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

// TestCompletionOfNames: what a command names, and what its flags name, is completed with what the server has.
func TestCompletionOfNames(t *testing.T) {
	admin := listen(t, &keeper{domains: []publish.Status{{Name: "good.test"}, {Name: "other.test"}}})
	client := httpd.NewClient(admin)
	if _, err := client.AddTenant(t.Context(), httpd.NewTenant{Name: "acme"}); err != nil {
		t.Fatal(err)
	}
	stspub(t, "webhook", "put", "panel", "--url", "https://panel.example.net/", "--admin", admin)
	var ids []string
	for _, label := range []string{"panel\nof\tacme", "revoked"} {
		token, err := client.AddToken(t.Context(), httpd.NewToken{Role: store.RoleRead, Label: label})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, token.ID)
	}
	if err := client.RevokeToken(t.Context(), ids[1]); err != nil {
		t.Fatal(err)
	}
	there := map[string]string{
		"DOMAIN": "good.test\nother.test\n", "mxset": "eu\nus\n", "account": "main\nown\n", "tenant": "acme\ndefault\n",
		"webhook": "panel\n", "ID": ids[0] + "\tpanel�of�acme\n", "NODE": "node1\nnode2\n",
	}
	complete := func(want string, args ...string) {
		t.Helper()
		if got, _, code := stspub(t, append([]string{"__complete"}, args...)...); code != 0 || got != want+":4\n" {
			t.Errorf("completion of %q: exit code %d, %q, want %q", args, code, got, want)
		}
	}
	anything := map[string]bool{"stspub tenant add": true, "stspub check": true} // and never a file
	argument, flags := regexp.MustCompile(`^\S+ \[?([A-Z]+)`), 0
	leaves(func(c *cobra.Command) {
		path := append(strings.Fields(c.CommandPath())[1:], "--admin", admin)
		if anything[c.CommandPath()] {
			complete("", append(path[:len(path)-2], "")...)
		} else if m := argument.FindStringSubmatch(c.Use); m != nil && m[1] != "FILE" && m[1] != "FROM" {
			kind := m[1]
			if kind == "NAME" {
				kind = c.Parent().Name()
			}
			complete(there[kind], append(path, "")...)
			complete("", append(path, "x", "")...) // there is only one
			first, _, _ := strings.Cut(there[kind], "\n")
			name, _, _ := strings.Cut(first, "\t")
			complete(first+"\n", append(path, name)...)
		}
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if want := there[f.Name] + there[strings.ToUpper(f.Name)]; want != "" {
				flags++
				complete(want, append(path, "--"+f.Name, "")...)
			}
		})
		c.InheritedFlags().VisitAll(func(f *pflag.Flag) {
			if want := there[f.Name]; want != "" {
				flags++
				complete(want, append(path, "--"+f.Name, "")...)
			}
		})
	})
	if flags < 25 {
		t.Errorf("%d flags were completed, want those of all commands", flags)
	}
}
