package dev

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRefresh(t *testing.T) {
	values := map[string]string{
		"server.https": `"127.0.0.1:2"`, "dns.resolvers": `["127.0.0.1:3"]`, "dns.stub": `{ "." = ["127.0.0.1:3"] }`,
		"account.lab.server": `"127.0.0.1:3"`, "check.smtp_port": "4",
	}
	for _, tt := range []struct{ name, text, want string }{
		{"of a table", "[server]\nhttps = \"127.0.0.1:1\"\n", "[server]\nhttps = \"127.0.0.1:2\"\n"},
		{"of another table", "[mine]\nhttps = \"x\"\n", "[mine]\nhttps = \"x\"\n"},
		{"of another account", "[account.mine]\nserver = \"x\"\n", "[account.mine]\nserver = \"x\"\n"},
		{"after another table", "[account.mine]\n[[domain]]\n[ account.lab ] # ours\nserver = \"x\"", "[account.mine]\n[[domain]]\n[ account.lab ] # ours\nserver = \"127.0.0.1:3\""},
		{"dotted", "server.https = \"x\"", "server.https = \"127.0.0.1:2\""},
		{"comment behind", "[check]\nsmtp_port = 25             # laboratory", "[check]\nsmtp_port = 4             # laboratory"},
		{"# in a value", "[server]\nhttps = \"#1\" # \"a\"", "[server]\nhttps = \"127.0.0.1:2\" # \"a\""},
		{"inline table", "[dns]\nstub = { \".\" = [\"x\"] }    # laboratory", "[dns]\nstub = { \".\" = [\"127.0.0.1:3\"] }    # laboratory"},
		{"several lines", "[dns]\nresolvers = [\n  \"x\",\n]", "[dns]\nresolvers = [\n  \"x\",\n]"},
		{"commented out", "[server]\n# https = \"x\"", "[server]\n# https = \"x\""},
		{"blanks", "[server]\n  https=\"x\"  ", "[server]\n  https= \"127.0.0.1:2\"  "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, refresh(tt.text, values)); diff != "" {
				t.Error("refreshed (-want +got):\n" + diff)
			}
		})
	}
}
