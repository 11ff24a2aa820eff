package config

import (
	"cmp"
	"encoding/base64"
	"errors"
	"maps"
	"net/mail"
	"slices"
	"strings"
	"time"
)

// letsEncryptStaging is the one staging directory that is known by itself.
const letsEncryptStaging = "https://acme-staging-v02.api.letsencrypt.org/directory"

// DefaultBudget is that of an [acme.NAME] table that says nothing of it. It stays a little below the limits of Let's Encrypt, as of 2026: 300 new orders an account in 3 hours, 50
// certificates a registered domain in 7 days, 5 failed validations a name in an hour.
func DefaultBudget() Budget {
	return Budget{
		Orders: 280, OrdersPeriod: 3 * time.Hour,
		DomainOrders: 45, DomainPeriod: 7 * day,
		Failures: 4, InFlight: 8, PerSecond: 10,
	}
}

// acme reads [acme.NAME] in order of preference.
func (l *loader) acme() {
	names := slices.Sorted(maps.Keys(l.doc.ACME))
	slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(l.doc.ACME[a].Line, l.doc.ACME[b].Line) })
	if len(names) == 0 {
		l.problem(0, "acme", `missing; write a table [acme.letsencrypt] with email = "postmaster@example.com" and `+
			`directory = "https://acme-v02.api.letsencrypt.org/directory"`)
		return
	}
	prefer := make(map[string]int, len(names))
	directories := make(map[string]string, len(names))
	trusted := false
	for i, name := range names {
		t, table := l.doc.ACME[name], tableKey("acme", name)
		l.label(table, name, t.Line)
		a := l.authority(table, name, t)
		if other, twice := directories[a.Directory]; twice && a.Directory != "" {
			l.problem(t.Directory.line, table+".directory", "is that of [%s]; write one table for each CA", other)
		}
		directories[a.Directory] = table
		prefer[name] = l.count(table+".prefer", t.Prefer, i+1, 1000)
		trusted = trusted || !a.Staging
		l.cfg.ACME = append(l.cfg.ACME, a)
	}
	slices.SortStableFunc(l.cfg.ACME, func(a, b ACME) int { return cmp.Compare(prefer[a.Name], prefer[b.Name]) })
	if !trusted {
		t := l.doc.ACME[names[0]]
		l.warn(max(t.Staging.line, t.Line), tableKey("acme", names[0]), "there is no CA but for staging: no sender trusts its "+
			"certificates, so nothing is announced by a TXT record")
	}
}

// authority reads one [acme.NAME].
func (l *loader) authority(table, name string, t acmeTable) ACME {
	a := ACME{
		Name: name, Email: t.Email.v, CAFile: l.caFile(table+".ca_file", t.CAFile), Profile: t.Profile.v,
		NoHTTP: l.cfg.Server.HTTP == "",
	}
	if addr, err := mail.ParseAddress(t.Email.v); t.Email.given() && (err != nil || addr.Address != t.Email.v) {
		l.problem(t.Email.line, table+".email", `%q is no mail address; write one like "postmaster@example.com"`, t.Email.v)
	}
	if !t.Directory.given() {
		l.problem(t.Line, table+".directory",
			`missing; write directory = "https://acme-v02.api.letsencrypt.org/directory" for Let's Encrypt`)
	} else {
		a.Directory = l.url(table+".directory", t.Directory, false)
	}
	if t.Profile.given() && !isWord(t.Profile.v) {
		l.problem(t.Profile.line, table+".profile", `%q is no name of a profile; write one of those in the directory, like "shortlived"`,
			t.Profile.v)
	}
	known := strings.TrimSuffix(a.Directory, "/") == letsEncryptStaging
	a.Staging = t.Staging.v || known
	if known && t.Staging.given() && !t.Staging.v {
		l.problem(t.Staging.line, table+".staging", "this directory is Let's Encrypt's for staging, whose certificates no sender trusts; "+
			"leave staging out, or write the directory https://acme-v02.api.letsencrypt.org/directory")
	}
	l.binding(table, t, &a)
	a.Budget = l.budget(table, t)
	return a
}

// binding reads the external account binding. Its two parts come together or not at all.
func (l *loader) binding(table string, t acmeTable, a *ACME) {
	hasKey := t.EABHMACFile.given() || t.EABHMACEnv.given()
	secret, _ := l.secret(table, "eab_hmac", t.EABHMACFile, t.EABHMACEnv, checkHMAC)
	switch {
	case hasKey && !t.EABKID.given():
		l.problem(t.Line, table+".eab_kid", "missing; write the key id that the CA gave you along with the HMAC key")
	case t.EABKID.given() && !hasKey:
		l.problem(t.Line, table+".eab_hmac_file", `missing; write the file with the HMAC key that the CA gave you along with the key id, `+
			`eab_hmac_file = "/run/secrets/eab"`)
	case t.EABKID.given() && !isWord(t.EABKID.v): // not shown: the key may stand here by mistake
		l.problem(t.EABKID.line, table+".eab_kid", "is no key id; write the one that the CA gave you, without spaces")
	case t.EABKID.given():
		key, err := decodeHMAC(secret)
		if err == nil { // else it was told
			a.EABKeyID, a.EABKey = t.EABKID.v, key
		}
	}
}

// checkHMAC says why a secret cannot be the key of an external account binding.
func checkHMAC(secret Secret) error {
	key, err := decodeHMAC(secret)
	if err == nil && key == "" {
		err = errors.New("the secret is empty; write the HMAC key, as the CA shows it")
	}
	return err
}

// decodeHMAC takes base64 in the alphabet of URLs, as RFC 8555, Section 7.3.4, has it, and in the other, as some web pages
// show it.
func decodeHMAC(secret Secret) (Secret, error) {
	plain := strings.NewReplacer("+", "-", "/", "_").Replace(strings.TrimRight(string(secret), "="))
	key, err := base64.RawURLEncoding.DecodeString(plain)
	if err != nil { // its words would quote from the key
		return "", errors.New("the secret is not base64; write the HMAC key alone, as the CA shows it")
	}
	return Secret(key), nil
}

// budget reads the limits of one [acme.NAME].
func (l *loader) budget(table string, t acmeTable) Budget {
	b := DefaultBudget()
	const most = 1_000_000
	b = Budget{
		Orders:       l.count(table+".orders", t.Orders, b.Orders, most),
		OrdersPeriod: l.duration(table+".orders_period", t.OrdersPeriod, b.OrdersPeriod, time.Minute, 30*day, `"1m" to "30d"`),
		DomainOrders: l.count(table+".domain_orders", t.DomainOrders, b.DomainOrders, most),
		DomainPeriod: l.duration(table+".domain_period", t.DomainPeriod, b.DomainPeriod, time.Minute, 30*day, `"1m" to "30d"`),
		Failures:     l.count(table+".failures", t.Failures, b.Failures, 1000),
		InFlight:     l.count(table+".in_flight", t.InFlight, b.InFlight, 1000),
		PerSecond:    l.count(table+".per_second", t.PerSecond, b.PerSecond, 1000),
	}
	if carried := b.Carried(); b.InFlight > carried {
		l.warn(cmp.Or(t.InFlight.line, t.PerSecond.line), table+".in_flight", "per_second carries no more than %d of these %d orders at "+
			"the same time; raise it if the CA allows that", carried, b.InFlight)
	}
	return b
}

// count returns a number from 1 to most, or what it is without the key.
func (l *loader) count(key string, n number, without, most int) int {
	if !n.given() {
		return without
	}
	if n.v < 1 || n.v > int64(most) {
		l.problem(n.line, key, "%d is out of range; 1 to %d", n.v, most)
		return without
	}
	return int(n.v)
}

// isWord reports whether a value is printable ASCII without spaces.
func isWord(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}
