package sender

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// WriteText writes the report for people: the verdict, the findings with what to do, then what was seen.
func (r Report) WriteText(w io.Writer) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s: %s\n\n", r.Name, r.verdict())
	width := 0
	for _, f := range r.Findings {
		width = max(width, utf8.RuneCountInString(shortSubject(f.Subject)))
	}
	for _, f := range r.Findings {
		subject := shortSubject(f.Subject)
		pad := strings.Repeat(" ", width-utf8.RuneCountInString(subject))
		fmt.Fprintf(&b, "%s %s%s  %s (%s)\n", mark(f.Severity), subject, pad, clean(f.Message), f.Section)
		if f.Advice != "" && f.Severity != OK {
			fmt.Fprintf(&b, "  %*s  → %s\n", width, "", clean(f.Advice))
		}
	}
	r.Record.write(&b)
	r.Policy.write(&b)
	writeMX(&b, r.MX, r.Policy.Mode != "")
	if _, err := w.Write(b.Bytes()); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

func (r Report) verdict() string {
	faults, warnings := r.count(Fault), r.count(Warning)
	switch {
	case faults > 0 && warnings > 0:
		return fmt.Sprintf("not good, %s and %s", count(faults, "fault"), count(warnings, "warning"))
	case faults > 0:
		return "not good, " + count(faults, "fault")
	case warnings > 0:
		return fmt.Sprintf("good, mode %s, %s", r.Policy.Mode, count(warnings, "warning"))
	}
	return "good, mode " + r.Policy.Mode
}

// shortSubject leaves of a policy's URL the host, as its rest is always the same.
func shortSubject(s string) string {
	return strings.TrimPrefix(strings.TrimSuffix(clean(s), policyPath), "https://")
}

func mark(s Severity) string {
	switch s {
	case OK:
		return "✓"
	case Warning:
		return "!"
	case Fault:
		return "✗"
	}
	return "·"
}

const label = "%-12s"

func (r Record) write(b *bytes.Buffer) {
	fmt.Fprintf(b, "\n"+label+"%s\n", "Record", strings.Join(append([]string{r.Name}, cleanAll(r.Chain)...), " → "))
	for _, txt := range r.TXT {
		fmt.Fprintf(b, label+"%q, TTL %s\n", "", txt, durationText(time.Duration(r.TTL)))
	}
}

func (p PolicySeen) write(b *bytes.Buffer) {
	fmt.Fprintf(b, "\n"+label+"%s\n", "Policy", p.URL)
	if p.Addr != "" && p.Status != 0 {
		fmt.Fprintf(b, label+"%d %s, %s, from %s in %s, %s\n", "", p.Status, http.StatusText(p.Status), p.Proto, p.Addr,
			durationText(time.Duration(p.Took)), cmp.Or(clean(p.Header.Get("Content-Type")), "no content type"))
	}
	p.Certificate.write(b)
	if p.Status != http.StatusOK || p.Body == "" {
		return
	}
	const most = 20
	lines := strings.Split(strings.TrimRight(p.Body, "\r\n"), "\n")
	for i, line := range lines {
		if i == most {
			fmt.Fprintf(b, label+"  … %d lines more\n", "", len(lines)-most)
			break
		}
		fmt.Fprintf(b, label+"  %s\n", "", clean(strings.TrimSuffix(line, "\r")))
	}
}

func (c *Certificate) write(b *bytes.Buffer) {
	if c != nil {
		fmt.Fprintf(b, label+"certificate for %s by %s until %s\n", "", strings.Join(cleanAll(c.Names), ", "), clean(c.Issuer),
			c.NotAfter.Format(time.DateOnly))
	}
}

func writeMX(b *bytes.Buffer, all []MX, policy bool) {
	title := "MX"
	if len(all) > 0 {
		b.WriteByte('\n')
	}
	for _, m := range all {
		at := ""
		if m.Addr != "" {
			at = " at " + m.Addr
		}
		fmt.Fprintf(b, label+"%d %s%s  %s policy  %s STARTTLS  %s certificate\n", title, m.Preference, clean(m.Host), at,
			tick(m.Covered, policy), tick(m.STARTTLS, m.Step == StepSTARTTLS),
			tick(m.Step == "" && m.Certificate != nil, m.Step == StepTLS || m.Step == StepCertificate))
		m.Certificate.write(b)
		title = ""
	}
}

// tick tells what is not good from what is not known.
func tick(good, known bool) string {
	switch {
	case good:
		return "✓"
	case known:
		return "✗"
	}
	return "?"
}

// clean keeps what strangers wrote from moving the cursor.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return utf8.RuneError
		}
		return r
	}, s)
}

func cleanAll(all []string) []string {
	var out []string
	for _, s := range all {
		out = append(out, clean(s))
	}
	return out
}

// durationText rounds to what people read at a glance: "5 min", "2.3 s", "13 days".
func durationText(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < 0:
		return "less than nothing"
	case d < 10*time.Second && d%time.Second != 0:
		return fmt.Sprintf("%.2g s", d.Seconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%.0f min", d.Minutes())
	case d < 2*day:
		return fmt.Sprintf("%.0f h", d.Hours())
	}
	return fmt.Sprintf("%.0f days", d.Hours()/24)
}
