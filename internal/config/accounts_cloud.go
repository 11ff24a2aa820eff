package config

import (
	"cmp"
	"strings"
)

func (l *loader) route53(table string, t accountTable, a *Account) {
	l.foreign(table, t, "access_key_id", "secret_access_key_file", "secret_access_key_env", "api_url")
	a.KeyID = l.identifier(table, "access_key_id", t.AccessKeyID, t.Line)
	a.Secret = l.credential(table, "secret_access_key", t.SecretAccessKeyFile, t.SecretAccessKeyEnv, t.Line, a)
	a.APIURL = l.apiURL(table, t)
}

func (l *loader) desec(table string, t accountTable, a *Account) {
	l.foreign(table, t, "api_token_file", "api_token_env", "api_url")
	a.APIToken = l.credential(table, "api_token", t.APITokenFile, t.APITokenEnv, t.Line, a)
	a.APIURL = l.apiURL(table, t)
}

func (l *loader) cloudns(table string, t accountTable, a *Account) {
	l.foreign(table, t, "auth_id", "sub_auth_id", "auth_password_file", "auth_password_env", "api_url")
	a.SubUser = t.SubAuthID.given()
	switch {
	case a.SubUser && t.AuthID.given():
		l.problem(t.SubAuthID.line, table+".sub_auth_id", "auth_id and sub_auth_id are both given; leave one out")
	case a.SubUser:
		a.KeyID = l.identifier(table, "sub_auth_id", t.SubAuthID, t.Line)
	default:
		a.KeyID = l.identifier(table, "auth_id", t.AuthID, t.Line)
	}
	a.Secret = l.credential(table, "auth_password", t.AuthPasswordFile, t.AuthPasswordEnv, t.Line, a)
	a.APIURL = l.apiURL(table, t)
}

func (l *loader) ovh(table string, t accountTable, a *Account) {
	l.foreign(table, t, "application_key", "application_secret_file", "application_secret_env", "consumer_key_file",
		"consumer_key_env", "api_url")
	a.KeyID = l.identifier(table, "application_key", t.ApplicationKey, t.Line)
	a.Secret = l.credential(table, "application_secret", t.ApplicationSecretFile, t.ApplicationSecretEnv, t.Line, a)
	a.ConsumerKey = l.credential(table, "consumer_key", t.ConsumerKeyFile, t.ConsumerKeyEnv, t.Line, a)
	a.APIURL = l.apiURL(table, t)
}

func (l *loader) mythicbeasts(table string, t accountTable, a *Account) {
	l.foreign(table, t, "key_id", "secret_file", "secret_env", "api_url")
	a.KeyID = l.identifier(table, "key_id", t.KeyID, t.Line)
	a.Secret = l.credential(table, "secret", t.SecretFile, t.SecretEnv, t.Line, a)
	a.APIURL = l.apiURL(table, t)
}

// identifier returns the public part of credentials, which is required.
func (l *loader) identifier(table, name string, t text, line int) string {
	switch {
	case !t.given():
		l.problem(line, table+"."+name, `missing; write %s = "…" as the provider shows it`, name)
	case t.v == "" || strings.ContainsFunc(t.v, func(r rune) bool { return r <= ' ' || r > '~' }):
		l.problem(t.line, table+"."+name, "%q is none; write it as the provider shows it, ASCII without spaces", t.v)
	}
	return t.v
}

// credential returns a required secret, and notes in the account why it could not be read.
func (l *loader) credential(table, name string, file, env text, line int, a *Account) Secret {
	if !file.given() && !env.given() {
		l.problem(line, table+"."+name+"_file", `missing; write %s_file = "/run/secrets/%s" or %s_env = "%s"`,
			name, a.Provider, name, strings.ToUpper(name))
	}
	secret, fault := l.secret(table, name, file, env, nil)
	a.Fault = cmp.Or(a.Fault, fault)
	return secret
}

// apiURL returns where the API is, without a slash at the end; empty: where the provider has it.
func (l *loader) apiURL(table string, t accountTable) string {
	if !t.APIURL.given() {
		return ""
	}
	return strings.TrimSuffix(l.url(table+".api_url", t.APIURL, true), "/")
}
