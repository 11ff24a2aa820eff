package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// The targets.
const (
	targetCPU     = 0.85 // of nginx's
	targetGrowth  = 1.05 // of our own with fewer domains
	targetIdle    = 1300 // bytes a domain, of the whole process
	targetTouched = 2300 // when each was asked for once
	targetFirst   = 500 * time.Millisecond
	targetCold    = 50 * time.Millisecond // of 99 in 100
	// targetDomains is how many domains the targets of memory and start are for.
	targetDomains = 100_000
)

// report prints what was found.
func (b *bench) report(out io.Writer, stspub, fewer, nginx *subject) {
	fmt.Fprintf(out, "\n%d domains, each with an ECDSA P-256 certificate; a full TLS 1.3 handshake (X25519) and one GET a connection\n", b.domains)
	fmt.Fprintf(out, "%d rounds of alternating runs of %d requests by %d clients; %s\n\n", b.pairs, b.options.requests, b.clients, b.placement())

	t := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	line := func(cells ...any) {
		fmt.Fprintln(t, join(cells))
	}
	few := fmt.Sprint(b.fewer)
	line("", "stspub", "stspub, "+few, "nginx, "+few, "target", "")
	line("CPU a request", median(stspub.cpu), median(fewer.cpu), median(nginx.cpu), "", "")
	line("  lowest and highest", span(stspub.cpu), span(fewer.cpu), span(nginx.cpu), "", "")
	for _, r := range []struct {
		title string
		to    *subject
		most  float64
	}{{"  stspub / nginx, median of the rounds", nginx, targetCPU}, {"  stspub / itself with fewer", fewer, targetGrowth}} {
		ratio := ratio(stspub.cpu, r.to.cpu)
		line(r.title, fmt.Sprintf("%.2f", ratio), "", "", fmt.Sprintf("<= %.2f", r.most), verdict(ratio <= r.most))
	}
	line("latency p50", median(stspub.p50), median(fewer.p50), median(nginx.p50), "", "")
	line("latency p99", median(stspub.p99), median(fewer.p99), median(nginx.p99), "", "")
	p99 := percentile(stspub.cold.times, 0.99)
	line(fmt.Sprintf("first request to a name, %d others a second: p50", otherRate), percentile(stspub.cold.times, 0.50), "", "", "", "")
	line("  p99", p99, "", "", "<= "+targetCold.String(), verdict(p99 <= targetCold))
	line("start to first good answer", stspub.first, "", nginx.first, "<= "+targetFirst.String(), verdict(stspub.first <= targetFirst))
	line("  the first time, from the store alone", stspub.unread, "", nginx.unread, "", "")
	line("memory (PSS) idle", mega(stspub.idle), "", mega(nginx.idle), "", "")
	line("memory, each domain asked once", mega(stspub.touched), "", mega(nginx.touched), "", "")
	for _, m := range []struct {
		title string
		of    func(*subject) int64
		most  int64
	}{
		{"  a domain, idle", func(s *subject) int64 { return s.idle }, targetIdle},
		{"  a domain, asked once", func(s *subject) int64 { return s.touched }, targetTouched},
	} {
		each := func(s *subject) int64 { return m.of(s) / int64(len(s.targets)) }
		line(m.title, kilo(each(stspub)), "", kilo(each(nginx)), "<= "+kilo(m.most), verdict(each(stspub) <= m.most))
	}
	line("CPU while idle, a minute", perMinute(stspub.idleTime, b.idle), perMinute(fewer.idleTime, b.idle), perMinute(nginx.idleTime, b.idle), "", "")
	_ = t.Flush() // what cannot be printed is not seen
	if b.domains != targetDomains {
		fmt.Fprintf(out, "\nThe targets of memory and start are for %d domains.\n", targetDomains)
	}
	fmt.Fprintf(out, "\n%d requests, %d errors\n", b.requests, b.failed)
}

// ratio is the median of the rounds' ratios.
func ratio(ours, theirs []time.Duration) float64 {
	ratios := make([]float64, len(ours))
	for i := range ours {
		ratios[i] = float64(ours[i]) / float64(max(theirs[i], 1))
	}
	return median(ratios)
}

func join(cells []any) string {
	texts := make([]string, len(cells))
	for i, c := range cells {
		if d, ok := c.(time.Duration); ok {
			c = round(d)
		}
		texts[i] = fmt.Sprint(c)
	}
	return strings.Join(texts, "\t")
}

// round leaves three digits.
func round(d time.Duration) time.Duration {
	unit := time.Duration(1)
	for d/unit >= 1000 {
		unit *= 10
	}
	return d.Round(unit)
}

func (b *bench) placement() string {
	if b.serverCPU < 0 {
		return "servers and clients share the CPUs"
	}
	return fmt.Sprintf("servers on CPU %d, clients on CPU %d", b.serverCPU, b.generatorCPU)
}

func median[T time.Duration | float64](values []T) T {
	s := slices.Sorted(slices.Values(values))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

func span(values []time.Duration) string {
	return fmt.Sprintf("%v..%v", round(slices.Min(values)), round(slices.Max(values)))
}

func perMinute(d, during time.Duration) time.Duration {
	return time.Duration(float64(d) * float64(time.Minute) / float64(during))
}

func mega(bytes int64) string { return fmt.Sprintf("%.1f MB", float64(bytes)/1e6) }
func kilo(bytes int64) string { return fmt.Sprintf("%.1f KB", float64(bytes)/1e3) }

func verdict(good bool) string {
	if good {
		return "pass"
	}
	return "MISSED"
}
