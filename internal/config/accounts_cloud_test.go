package config

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func cloudEdits() []edit {
	return []edit{
		{
			"no key of AWS", "", "[account.b]\nprovider = 'route53'\nsecret_access_key_env = 'TOKEN'\n",
			`stspub.toml:17: account.b.access_key_id: missing; write access_key_id = "…" as the provider shows it`,
		},
		{
			"no secret of AWS", "", "[account.b]\nprovider = 'route53'\naccess_key_id = 'AKIA'\n",
			`stspub.toml:17: account.b.secret_access_key_file: missing; write secret_access_key_file = "/run/secrets/route53" or secret_access_key_env = "SECRET_ACCESS_KEY"`,
		},
		{
			"secret of AWS in the file", "", "[account.b]\nprovider = 'route53'\naccess_key_id = 'AKIA'\nsecret_access_key_env = 'TOKEN'\nsecret_access_key = 'geheim'\n",
			`stspub.toml:21: account.b.secret_access_key: a secret does not belong into this file; write it to a file of its own and name that with secret_access_key_file, or an environment variable with secret_access_key_env`,
		},
		{
			"key of AWS with a space", "", "[account.b]\nprovider = 'route53'\naccess_key_id = 'AK IA'\nsecret_access_key_env = 'TOKEN'\n",
			`stspub.toml:19: account.b.access_key_id: "AK IA" is none; write it as the provider shows it, ASCII without spaces`,
		},
		{
			"key of AWS for deSEC", "", "[account.b]\nprovider = 'desec'\napi_token_env = 'TOKEN'\naccess_key_id = 'AKIA'\n",
			`stspub.toml:20: account.b.access_key_id: provider "desec" has no such key; leave it out`,
		},
		{
			"no token of deSEC", "", "[account.b]\nprovider = 'desec'\n",
			`stspub.toml:17: account.b.api_token_file: missing; write api_token_file = "/run/secrets/desec" or api_token_env = "API_TOKEN"`,
		},
		{
			"API of deSEC in clear", "", "[account.b]\nprovider = 'desec'\napi_token_env = 'TOKEN'\napi_url = 'http://api.example.com'\n",
			`stspub.toml:20: account.b.api_url: is not HTTPS; write a URL that begins with https://`,
		},
		{
			"two users of ClouDNS", "", "[account.b]\nprovider = 'cloudns'\nauth_id = '1'\nsub_auth_id = '2'\nauth_password_env = 'TOKEN'\n",
			`stspub.toml:20: account.b.sub_auth_id: auth_id and sub_auth_id are both given; leave one out`,
		},
		{
			"no user of ClouDNS", "", "[account.b]\nprovider = 'cloudns'\nauth_password_env = 'TOKEN'\n",
			`stspub.toml:17: account.b.auth_id: missing; write auth_id = "…" as the provider shows it`,
		},
		{
			"no consumer of OVH", "", "[account.b]\nprovider = 'ovh'\napplication_key = 'k'\napplication_secret_env = 'TOKEN'\n",
			`stspub.toml:17: account.b.consumer_key_file: missing; write consumer_key_file = "/run/secrets/ovh" or consumer_key_env = "CONSUMER_KEY"`,
		},
		{
			"no secret of Mythic Beasts", "", "[account.b]\nprovider = 'mythicbeasts'\nkey_id = 'k'\n",
			`stspub.toml:17: account.b.secret_file: missing; write secret_file = "/run/secrets/mythicbeasts" or secret_env = "SECRET"`,
		},
		{
			"TSIG key for Mythic Beasts", "", "[account.b]\nprovider = 'mythicbeasts'\nkey_id = 'k'\nsecret_env = 'TOKEN'\nkey_name = 'k'\n",
			`stspub.toml:21: account.b.key_name: provider "mythicbeasts" has no such key; leave it out`,
		},
	}
}

const cloudTables = `
[account.aws]
provider = "route53"
access_key_id = "AKIA"
secret_access_key_env = "A"

[account.desec]
provider = "desec"
api_token_env = "A"
api_url = "https://desec.example/api/v1/"

[account.cloudns]
provider = "cloudns"
auth_id = "12"
auth_password_env = "A"

[account.sub]
provider = "cloudns"
sub_auth_id = "34"
auth_password_env = "A"

[account.ovh]
provider = "ovh"
application_key = "app"
application_secret_env = "A"
consumer_key_env = "B"

[account.mythic]
provider = "mythicbeasts"
key_id = "key"
secret_env = "A"
`

// TestCloudAccounts reads an account of each provider, with its secrets and, as an accepted configuration, without.
func TestCloudAccounts(t *testing.T) {
	t.Parallel()
	example := strings.ReplaceAll(readExample(t), "/run/secrets/cloudflare", "token")
	path := inFolder(t, "stspub.toml", example+cloudTables, map[string]string{"token": "fake-token\n"})
	env := map[string]string{"A": "secret-a", "B": "secret-b"}
	got, warnings, err := Load(path, func(name string) string { return env[name] })
	if err != nil || len(warnings) > 0 {
		t.Fatalf("Load = warnings %v, error %v, want none", warnings, err)
	}
	want := map[string]Account{
		"aws":     {Name: "aws", Provider: "route53", KeyID: "AKIA", Secret: "secret-a"},
		"desec":   {Name: "desec", Provider: "desec", APIToken: "secret-a", APIURL: "https://desec.example/api/v1"},
		"cloudns": {Name: "cloudns", Provider: "cloudns", KeyID: "12", Secret: "secret-a"},
		"sub":     {Name: "sub", Provider: "cloudns", KeyID: "34", SubUser: true, Secret: "secret-a"},
		"ovh":     {Name: "ovh", Provider: "ovh", KeyID: "app", Secret: "secret-a", ConsumerKey: "secret-b"},
		"mythic":  {Name: "mythic", Provider: "mythicbeasts", KeyID: "key", Secret: "secret-a"},
	}
	delete(got.Accounts, "main")
	if diff := cmp.Diff(want, got.Accounts); diff != "" {
		t.Errorf("accounts, -want +got:\n%s", diff)
	}

	lenient, _, err := LoadFiles(path, func(string) string { return "" }, os.ReadFile)
	if err != nil {
		t.Fatalf("LoadFiles: %v", err)
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if a := lenient.Accounts[name]; a.Fault == "" || a.Secret != "" || a.APIToken != "" || a.ConsumerKey != "" {
			t.Errorf("account %s without its secret = %+v, want a fault and no secret", name, a)
		}
	}
}
