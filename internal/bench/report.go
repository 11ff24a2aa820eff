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
	targetCPU    = 0.90 // of nginx's
	targetMemory = 5000 // bytes a domain
	targetFirst  = time.Second
)

// report prints what was found.
func (b *bench) report(out io.Writer, stspub, nginx *subject) {
	fmt.Fprintf(out, "\n%d domains, each with an ECDSA P-256 certificate; a full TLS 1.3 handshake (X25519) and one GET a connection\n", b.domains)
	fmt.Fprintf(out, "%d pairs of alternating runs of %d requests by %d clients; %s\n\n", b.pairs, b.options.requests, b.clients, b.placement())

	ratios := make([]float64, b.pairs)
	for i := range ratios {
		ratios[i] = float64(stspub.cpu[i]) / float64(nginx.cpu[i])
	}
	ratio := median(ratios)
	each := b.perDomain(stspub)
	t := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	line := func(cells ...any) {
		fmt.Fprintln(t, join(cells))
	}
	line("", "stspub", "nginx", "target", "")
	line("CPU a request", median(stspub.cpu), median(nginx.cpu), "", "")
	line("  stspub / nginx, median of the pairs", fmt.Sprintf("%.2f", ratio), "", fmt.Sprintf("<= %.2f", targetCPU), verdict(ratio <= targetCPU))
	line("  lowest and highest", span(stspub.cpu), span(nginx.cpu), "", "")
	line("latency p50", median(stspub.p50), median(nginx.p50), "", "")
	line("latency p99", median(stspub.p99), median(nginx.p99), "", "")
	line("start to first good answer", stspub.first, nginx.first, "<= 1s", verdict(stspub.first <= targetFirst))
	line("memory (PSS) idle", mega(stspub.idle), mega(nginx.idle), "", "")
	line("memory, each domain asked once", mega(stspub.touched), mega(nginx.touched), "", "")
	line("  with a single domain", mega(stspub.alone), mega(nginx.alone), "", "")
	line("  a domain, above that", kilo(each), kilo(b.perDomain(nginx)), "<= "+kilo(targetMemory), verdict(each <= targetMemory))
	line("CPU while idle, a minute", perMinute(stspub.idleTime, b.idle), perMinute(nginx.idleTime, b.idle), "", "")
	_ = t.Flush() // what cannot be printed is not seen
	fmt.Fprintf(out, "\n%d requests, %d errors\n", b.requests, b.failed)
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

// perDomain is what one domain more takes when each was asked once.
func (b *bench) perDomain(s *subject) int64 { return (s.touched - s.alone) / int64(b.domains-1) }

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
