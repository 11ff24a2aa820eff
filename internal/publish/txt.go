package publish

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// answered counts the servers that answered.
func (t *TXT) answered() int {
	n := 0
	for _, s := range t.Servers {
		if s.Err == "" {
			n++
		}
	}
	return n
}

// complete says that every server answered.
func (t *TXT) complete() bool { return len(t.Servers) > 0 && t.answered() == len(t.Servers) }

// all says that every server answers value, and no other STSv1 record.
func (t *TXT) all(value string) bool {
	return t.complete() && !slices.ContainsFunc(t.Servers, func(s Server) bool { return len(s.STS) != 1 || s.STS[0] != value })
}

// some says that a server answers value.
func (t *TXT) some(value string) bool {
	return slices.ContainsFunc(t.Servers, func(s Server) bool { return slices.Contains(s.STS, value) })
}

// only says which servers answer value, where not all do.
func (t *TXT) only(value string) string {
	var names []string
	for _, s := range t.Servers {
		if slices.Contains(s.STS, value) {
			names = append(names, s.Name)
		}
	}
	if len(names) == len(t.Servers) {
		return ""
	}
	return " (only at " + strings.Join(names, ", ") + ")"
}

// doubled says that a server answers value and another STSv1 record. RFC 8461, Section 3.1: that is no policy at all.
func (t *TXT) doubled(value string) bool {
	return slices.ContainsFunc(t.Servers, func(s Server) bool { return len(s.STS) > 1 && slices.Contains(s.STS, value) })
}

// absent says that no server that answered has an STSv1 record.
func (t *TXT) absent() bool { return len(t.sts()) == 0 }

// bare says that a server answers neither an STSv1 record nor the shared one, but another TXT: a tombstone.
func (t *TXT) bare() bool {
	return slices.ContainsFunc(t.Servers, func(s Server) bool { return s.Bare })
}

// entombed says that every server does so.
func (t *TXT) entombed() bool {
	return t.complete() && !slices.ContainsFunc(t.Servers, func(s Server) bool { return !s.Bare })
}

// sts returns every STSv1 value seen, each once.
func (t *TXT) sts() []string {
	var all []string
	for _, s := range t.Servers {
		all = append(all, s.STS...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// ttl is for how long caches hold what was seen.
func (t *TXT) ttl() time.Duration {
	var ttl time.Duration
	for _, s := range t.Servers {
		ttl = max(ttl, s.TTL)
	}
	return min(ttl, maxHandover)
}

// foreign returns the STSv1 values that were never intended here.
func (t *TXT) foreign() []string {
	return slices.DeleteFunc(t.sts(), func(v string) bool { return slices.Contains(t.Ours, v) })
}

// lag says which servers do not answer value, and what they answer.
func (t *TXT) lag(value string) string {
	if len(t.Servers) == 0 {
		return "no authoritative server is known"
	}
	var parts []string
	for _, s := range t.Servers {
		switch {
		case s.Err != "":
			parts = append(parts, fmt.Sprintf("%s: %s", s.Name, s.Err))
		case len(s.STS) == 0:
			parts = append(parts, s.Name+": no record")
		case len(s.STS) > 1 || s.STS[0] != value:
			parts = append(parts, fmt.Sprintf("%s: %q", s.Name, s.STS))
		}
	}
	return "waiting for every name server to answer the new record; " + strings.Join(parts, "; ")
}
