package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAccountFrom(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		provider string
		values   map[string]string
		want     Account
	}{
		{"cloudflare", map[string]string{"api_token": "s3cret"}, Account{APIToken: "s3cret", APIURL: defaultAPIURL}},
		{"desec", map[string]string{"api_token": " s3cret\n", "api_url": "https://api.example/"}, Account{APIToken: "s3cret", APIURL: "https://api.example"}},
		{
			"rfc2136",
			map[string]string{"server": "192.0.2.53", "key_name": "K.", "key": "c2VjcmV0"},
			Account{Server: "192.0.2.53:53", KeyName: "k", KeyAlgorithm: defaultKeyAlgorithm, Key: "c2VjcmV0"},
		},
		{"cloudns", map[string]string{"sub_auth_id": "7", "auth_password": "p"}, Account{KeyID: "7", SubUser: true, Secret: "p"}},
		{"powerdns", map[string]string{"server": "https://pdns.example", "api_key": "k"}, Account{Server: "https://pdns.example", APIKey: "k", ServerID: "localhost"}},
	} {
		tt.want.Name, tt.want.Provider = "main", tt.provider
		got, err := AccountFrom("main", tt.provider, tt.values)
		if diff := cmp.Diff(tt.want, got); err != nil || diff != "" {
			t.Errorf("AccountFrom(%s): %v (-want +got):\n%s", tt.provider, err, diff)
		}
	}
}

func TestAccountFromMistakes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, provider string
		values         map[string]string
		want           string
	}{
		{"main", "", nil, `provider: "" is no provider; write one of ` + providerNames},
		{"main", "desec", nil, "api_token: missing"},
		{"main", "desec", map[string]string{"api_token": ""}, "api_token: is no secret; write it as one line of ASCII without spaces"},
		{"main", "desec", map[string]string{"api_token": "two words"}, "api_token: is no secret; write it as one line of ASCII without spaces"},
		{"main", "desec", map[string]string{"api_token": "x", "key_name": "k"}, `key_name: provider "desec" has no such key; leave it out`},
		{"main", "desec", map[string]string{"api_token_file": "/etc/shadow"}, "api_token_file: unknown key\napi_token: missing"},
		{"main", "desec", map[string]string{"api_token": "x", "api_url": "http://user:hunter2@api.example"}, "api_url: has a user or password in it, which does not belong into this file"},
		{"Main", "desec", map[string]string{"api_token": "x"}, `name: "Main" is no name for a table; up to 63 lower-case letters, digits and hyphens, none of these first or last`},
		{
			"main", "rfc2136",
			map[string]string{"server": "192.0.2.53", "key_name": "k", "key": "hunter2!"},
			"key: the secret is not base64; write the secret of the TSIG key alone, as it stands behind the word secret in the server's configuration",
		},
	} {
		_, err := AccountFrom(tt.name, tt.provider, tt.values)
		if err == nil || err.Error() != tt.want || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("AccountFrom(%q, %s, %d values) = %v, want %s", tt.name, tt.provider, len(tt.values), err, tt.want)
		}
	}
}
