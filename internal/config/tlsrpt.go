package config

import "github.com/stspub/stspub/internal/policygen"

// report returns the TLSRPT record that a list of addresses makes; without any, or after a problem, "".
func (l *loader) report(key string, t list) string {
	var uris []string
	lines := make(map[string]int)
	for _, item := range t.items {
		uri, err := policygen.ParseReportURI(item.v)
		if err != nil {
			l.problem(item.line, key, "%s", policygen.Reason(err))
			continue
		}
		if first, twice := lines[uri]; twice {
			l.problem(item.line, key, "%q is there twice, first in line %d; leave one out", item.v, first)
			continue
		}
		lines[uri] = item.line
		uris = append(uris, uri)
	}
	if len(uris) == 0 || len(uris) < len(t.items) {
		return ""
	}
	text, err := policygen.ReportText(uris)
	if err != nil {
		l.problem(t.line, key, "%s", policygen.Reason(err))
	}
	return text
}
