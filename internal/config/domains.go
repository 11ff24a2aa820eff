package config

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/stspub/stspub/internal/policygen"
)

// timing reads [publish] and [check].
func (l *loader) timing() {
	p, c := l.doc.Publish, l.doc.Check
	l.cfg.Publish = Publish{
		Settle:    l.duration("publish.settle", p.Settle, 5*time.Minute, time.Second, day, `"1s" to "24h"`),
		TTL:       l.duration("publish.ttl", p.TTL, 300*time.Second, time.Minute, time.Hour, `"60s" to "3600s"`),
		NodeGrace: l.duration("publish.node_grace", p.NodeGrace, 10*time.Minute, time.Second, day, `"1s" to "24h"`),
	}
	if l.cfg.Publish.Settle < 5*time.Minute {
		l.warn(p.Settle.line, "publish.settle", "%q is for laboratories: some senders remember an old policy for 5m, and file it under "+
			"the new id", p.Settle.text)
	}
	if l.cfg.Publish.TTL%time.Second != 0 {
		l.problem(p.TTL.line, "publish.ttl", "%q has a fraction of a second; write whole seconds", p.TTL.text)
	}
	l.cfg.Check = Check{
		Every:     l.duration("check.every", c.Every, day, time.Second, 7*day, `"1s" to "168h"`),
		HTTPPort:  l.port("check.http_port", c.HTTPPort, 80),
		HTTPSPort: l.port("check.https_port", c.HTTPSPort, 443),
		SMTPPort:  l.port("check.smtp_port", c.SMTPPort, 25),
		CAFile:    l.caFile("check.ca_file", c.CAFile),
	}
	l.cfg.Check.AllowPrivate = l.networks("check.allow_private", c.AllowPrivate, `"10.0.0.0/8" or "fd00::25"`)
}

// networks reads a list of networks and addresses.
func (l *loader) networks(key string, t list, like string) []netip.Prefix {
	var all []netip.Prefix
	for _, a := range t.items {
		p, ok := network(a.v)
		if !ok {
			l.problem(a.line, key, `%q is neither a network nor an address; write one like %s`, a.v, like)
			continue
		}
		all = append(all, p)
	}
	return all
}

// network reads a network, or an address as a network of one.
func network(s string) (netip.Prefix, bool) {
	if addr, err := netip.ParseAddr(s); err == nil && addr.Zone() == "" {
		return netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()), true
	}
	p, err := netip.ParsePrefix(s)
	return p.Masked(), err == nil && !p.Addr().Is4In6()
}

func (l *loader) port(key string, n number, without int) int {
	if !n.given() {
		return without
	}
	if n.v < 1 || n.v > 65535 {
		l.problem(n.line, key, "%d is no port; 1 to 65535", n.v)
	}
	return int(n.v)
}

// mxsets reads [mxset.NAME] but for the domains.
func (l *loader) mxsets() {
	l.cfg.MXSets = make(map[string]MXSet, len(l.doc.MXSets))
	for _, name := range slices.Sorted(maps.Keys(l.doc.MXSets)) {
		t, table := l.doc.MXSets[name], tableKey("mxset", name)
		l.label(table, name, t.Line)
		set := MXSet{Name: name, Policy: policygen.Policy{MX: l.patterns(table+".mx", t)}}
		if !t.Mode.given() {
			l.problem(t.Line, table+".mode", `missing; write mode = "testing" to begin with, or "enforce"`)
		} else if mode, err := policygen.ParseMode(t.Mode.v); err != nil {
			l.problem(t.Mode.line, table+".mode", "%s", policygen.Reason(err))
		} else {
			set.Policy.Mode = mode
		}
		if t.MaxAge.given() {
			set.Policy.MaxAge = l.maxAge(table+".max_age", t.MaxAge)
		} else {
			l.problem(t.Line, table+".max_age", `missing; write max_age = "2w", or "1d" to begin with`)
		}
		set.Rollout = l.duration(table+".rollout", t.Rollout, 0, time.Second, MaxRollout, `"1s" to "52w"`)
		// What is wrong with a part is said by now, in better words. What is left is the whole.
		if p := set.Policy; p.Mode != "" && p.MaxAge > 0 && len(p.MX) == len(t.MX.items) && len(p.MX) > 0 {
			if err := p.Validate(); err != nil {
				l.problem(t.MX.line, table+".mx", "%s", policygen.Reason(err))
			}
		}
		l.cfg.MXSets[name] = set
	}
}

// patterns returns the MX patterns of a set that are right.
func (l *loader) patterns(key string, t mxsetTable) []string {
	if len(t.MX.items) == 0 {
		what := "missing"
		if t.MX.given() {
			what = "is empty"
		}
		l.problem(max(t.Line, t.MX.line), key, `%s; write at least one MX, mx = ["mx1.example.net"]`, what)
	}
	var patterns []string
	lines := make(map[string]int)
	for _, item := range t.MX.items {
		pattern, changed, err := policygen.ParsePattern(item.v)
		if err != nil {
			l.problem(item.line, key, "%s", policygen.Reason(err))
			continue
		}
		if changed {
			l.warn(item.line, key, "%q is published as %q", item.v, pattern)
		}
		if first, twice := lines[pattern]; twice {
			l.problem(item.line, key, "%q is there twice, first in line %d; leave one out", pattern, first)
			continue
		}
		lines[pattern] = item.line
		patterns = append(patterns, pattern)
	}
	return patterns
}

// way is how the record of a domain is reached, the two keys of that in a [[domain]] or [mxset.NAME], and the TLSRPT
// record beside it.
type way struct{ publish, account, tlsrpt string }

// declared is a name of a domain as it is written.
type declared struct {
	raw  string
	line int
	in   *source
}

// source is what declares domains: a [[domain]] table, a list in the configuration file, or a domains file.
type source struct {
	file   string
	anchor int    // line in the configuration file that leads to the file; 0 where that is the file
	key    string // empty in a domains file
	set    string
	way    way
	adopt  bool

	problems, warnings int // told so far
}

// anchor returns the line in the configuration file that declares the domain.
func (d declared) anchor() int { return cmp.Or(d.in.anchor, d.line) }

// maxPerList is how many problems of a list are told one by one. Whoever points at a wrong file reads the first few.
const maxPerList = 20

// readLists reads the domains files, and leaves what is in them for later.
func (l *loader) readLists() {
	l.lists = make(map[string][]byte)
	for _, name := range slices.Sorted(maps.Keys(l.doc.MXSets)) {
		t := l.doc.MXSets[name].DomainsFile
		if !t.given() {
			continue
		}
		path := l.path(t.v)
		content, err := l.readFile(path)
		if err != nil {
			l.problem(t.line, tableKey("mxset", name)+".domains_file", "read %q: %s; write the path of a file with one domain a line", path, cause(err))
			continue
		}
		l.keep(path, content)
		l.lists[name] = content
	}
}

// domains reads [[domain]] and the lists of the MX sets.
func (l *loader) domains() {
	ways := make(map[string]way, len(l.doc.MXSets))
	var all []declared
	for _, name := range slices.Sorted(maps.Keys(l.doc.MXSets)) {
		ways[name] = l.setWay(name)
		all = append(all, l.listed(name, ways[name])...)
	}
	for _, t := range l.doc.Domains {
		all = append(all, l.tabled(t, ways)...)
	}
	slices.SortStableFunc(all, func(a, b declared) int { return cmp.Compare(a.anchor(), b.anchor()) })
	l.names(all)
}

// names turns what is declared into the domains of the configuration, each once, sorted.
func (l *loader) names(all []declared) {
	first := make(map[policygen.Name]int, len(all))
	l.cfg.Domains = make([]Domain, 0, len(all))
	for i, d := range all {
		name, err := policygen.ParseName(d.raw)
		if err != nil {
			l.refuse(d, "%s", policygen.Reason(err))
			continue
		}
		if j, twice := first[name]; twice {
			l.refuse(d, "%q is declared twice, first in %s:%d; leave one out", name, all[j].in.file, all[j].line)
			continue
		}
		if err := name.CheckReport(); err != nil && d.in.way.tlsrpt != "" {
			l.refuse(d, "%s", policygen.Reason(err))
			continue
		}
		first[name] = i
		if !isASCII(d.raw) {
			l.tell(d, "%q is published as %q", d.raw, name)
		}
		l.cfg.Domains = append(l.cfg.Domains, Domain{
			Name: name, MXSet: d.in.set, Publish: d.in.way.publish, Account: d.in.way.account, Adopt: d.in.adopt,
			TLSRPT: d.in.way.tlsrpt,
		})
	}
	slices.SortFunc(l.cfg.Domains, func(a, b Domain) int { return cmp.Compare(a.Name, b.Name) })
}

// refuse adds a problem of a domain, unless enough are told of what declares it.
func (l *loader) refuse(d declared, format string, args ...any) {
	if d.in.problems++; d.in.problems <= maxPerList {
		l.findings.problems = append(l.findings.problems, d.finding(d.in.problems, format, args...))
	}
}

// tell adds a warning likewise.
func (l *loader) tell(d declared, format string, args ...any) {
	if d.in.warnings++; d.in.warnings <= maxPerList {
		l.findings.warnings = append(l.findings.warnings, d.finding(d.in.warnings, format, args...))
	}
}

func (d declared) finding(count int, format string, args ...any) finding {
	text := fmt.Sprintf(format, args...)
	if count == maxPerList {
		text += " (what else is wrong in this list is not told)"
	}
	return finding{Problem{d.in.file, d.line, d.in.key, text}, d.anchor()}
}

// setWay returns the way of an MX set, for its listed domains and for the tables that say none.
func (l *loader) setWay(name string) way {
	t, table := l.doc.MXSets[name], tableKey("mxset", name)
	w := way{tlsrpt: l.report(table+".tlsrpt", t.TLSRPT)}
	if t.TLSRPT.given() && len(t.TLSRPT.items) == 0 {
		l.problem(t.TLSRPT.line, table+".tlsrpt", "is empty; write at least one address, or leave it out")
	}
	if t.Account.given() {
		w.account = l.account(table+".account", t.Account)
	}
	if t.Publish.given() {
		w.publish = l.publish(table+".publish", t.Publish)
	}
	if !t.Domains.given() && !t.DomainsFile.given() {
		if inAliasZone(w.publish) {
			l.ownAccount(table, t.Account)
		}
		return w
	}
	if !t.Publish.given() {
		l.problem(t.Line, table+".publish", `missing; its listed domains need publish = %s`, allWays)
	}
	switch {
	case inAliasZone(w.publish):
		l.ownAccount(table, t.Account)
	case w.publish == publishZone && !t.Account.given():
		l.problem(t.Line, table+".account", `missing; publish = "zone" needs the account that holds the zones, account = "%s"`,
			l.anyAccount())
	}
	return w
}

// listed returns the domains that an MX set lists.
func (l *loader) listed(name string, w way) []declared {
	t, table := l.doc.MXSets[name], tableKey("mxset", name)
	w.account = l.holder(w)
	var all []declared
	inline := &source{file: l.file, key: table + ".domains", set: name, way: w}
	for _, item := range t.Domains.items {
		all = append(all, declared{item.v, item.line, inline})
	}
	if t.Domains.given() && len(t.Domains.items) == 0 {
		l.problem(t.Domains.line, table+".domains", "is empty; write at least one domain, or leave it out")
	}
	if !t.DomainsFile.given() {
		return all
	}
	file := &source{file: l.path(t.DomainsFile.v), anchor: t.DomainsFile.line, set: name, way: w}
	for i, line := range l.domainsFile(name, t.DomainsFile) {
		if raw := uncomment(line); raw != "" {
			all = append(all, declared{raw, i + 1, file})
		}
	}
	return all
}

// uncomment returns the domain in a line of a domains file, or "".
func uncomment(line string) string {
	line, _, _ = strings.Cut(line, "#")
	return strings.TrimSpace(line)
}

// domainsFile returns the lines of the domains file of an MX set. One that lost its domains or its end on the way here would
// take domains out of service: it is refused.
func (l *loader) domainsFile(name string, t text) []string {
	content, found := l.lists[name]
	if !found {
		return nil
	}
	path, key := l.path(t.v), tableKey("mxset", name)+".domains_file"
	lines := strings.Split(strings.TrimPrefix(string(content), "\ufeff"), "\n")
	last := len(lines) - 1
	if lines[last] != "" {
		l.problem(t.line, key, "%q has no line end after line %d, so it may be cut off; end the last line", path, last+1)
	}
	if !slices.ContainsFunc(lines, func(line string) bool { return uncomment(line) != "" }) {
		l.problem(t.line, key, "%q has no domain in it; write one a line, or leave the key out", path)
	}
	return lines
}

// tabled returns the domain of a [[domain]] table, if it has a name.
func (l *loader) tabled(t domainTable, ways map[string]way) []declared {
	if t.Line == 0 {
		return nil // of a wrong type
	}
	if !t.Name.given() {
		l.problem(t.Line, "domain.name", `missing; write name = "example.org"`)
	}
	set, known := ways[t.MXSet.v]
	switch sets := slices.Sorted(maps.Keys(ways)); {
	case !t.MXSet.given():
		l.problem(t.Line, "domain.mxset", `missing; write the name of an MX set, mxset = "%s"`, append(sets, "main")[0])
	case !known:
		l.problem(t.MXSet.line, "domain.mxset", "%s", l.missing("mxset", t.MXSet.v, sets))
	}
	w := l.domainWay(t, set)
	if !t.Name.given() {
		return nil
	}
	in := &source{file: l.file, key: "domain.name", set: t.MXSet.v, way: w, adopt: t.Adopt.v}
	return []declared{{t.Name.v, t.Name.line, in}}
}

// domainWay returns the way of a [[domain]] table; what it leaves out is that of its MX set.
func (l *loader) domainWay(t domainTable, set way) way {
	w := set
	if t.TLSRPT.given() { // also an empty list, which is none
		w.tlsrpt = l.report("domain.tlsrpt", t.TLSRPT)
	}
	if t.Publish.given() {
		w.publish = l.publish("domain.publish", t.Publish)
	} else if set.publish == "" && !l.doc.MXSets[t.MXSet.v].Publish.given() {
		l.problem(t.Line, "domain.publish", `missing; write publish = %s, here or in the MX set`, allWays)
	}
	switch {
	case inAliasZone(w.publish):
		l.ownAccount("domain", t.Account)
	case w.publish == publishManual && t.Account.given():
		l.problem(t.Account.line, "domain.account", `publish = "manual" writes nothing, so it has no account; leave it out`)
	case t.Account.given():
		w.account = l.account("domain.account", t.Account)
	case w.publish == publishZone && !l.doc.MXSets[t.MXSet.v].Account.given():
		l.problem(t.Line, "domain.account", `missing; publish = "zone" needs the account that holds the zone, account = "%s"`,
			l.anyAccount())
	}
	w.account = l.holder(w)
	return w
}

// holder is the account that holds the records of a way.
func (l *loader) holder(w way) string {
	switch {
	case inAliasZone(w.publish):
		return l.cfg.Alias.Account
	case w.publish == publishManual:
		return ""
	}
	return w.account
}

// The values of publish, as package store has them.
const (
	publishZone   = "zone"
	publishAlias  = "alias"
	publishShared = "shared"
	publishManual = "manual"

	allWays = `"zone", "alias", "shared" or "manual"`
)

// inAliasZone says whether a record lies in the alias zone.
func inAliasZone(publish string) bool { return publish == publishAlias || publish == publishShared }

// publish returns a value of publish that can be had, or "" after a problem.
func (l *loader) publish(key string, t text) string {
	switch t.v {
	case publishZone, publishManual:
		return t.v
	case publishAlias, publishShared:
		if l.doc.Alias.Line == 0 {
			l.problem(t.line, key, `%q needs a table [alias] with zone and account`, t.v)
		}
		return t.v
	default:
		l.problem(t.line, key, "%q is no way to publish; write "+allWays, t.v)
	}
	return ""
}

// ownAccount refuses another account than that of [alias] for a record in the alias zone.
func (l *loader) ownAccount(table string, t text) {
	if t.given() && t.v != l.doc.Alias.Account.v {
		l.problem(t.line, table+".account", `%q is not the account of [alias], which holds the records of publish = "alias"; `+
			"leave it out", t.v)
	}
}

// readRegular reads a file. It is no pipe: opening one waits.
func readRegular(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("is no regular file")
	}
	return os.ReadFile(path)
}
