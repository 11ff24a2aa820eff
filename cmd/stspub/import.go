package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/stspub/stspub/internal/httpd"
	"github.com/stspub/stspub/internal/store"
)

func newDomainImport(s *server) *cobra.Command {
	im := &importer{s: s}
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Add, change or remove any number of domains",
		Long: `import reads a line for each domain from a file, or from standard input with "-": a name, for which the flags say what is
wanted, or a JSON object with what is wanted of it:

  {"name":"shop.example","mxset":"eu","publish":"alias"}
  {"name":"gone.example","remove":true}

Empty lines and those that begin with # are left out. Every line is done by itself; what was not done is printed with its
line. It may be called again with the same file: what is as it is wanted is left alone. Removing more than ten domains, and
more than one in a hundred, needs --confirm.`,
		Example: `  stspub domain import domains.ndjson
  stspub domain import customers.txt --mxset eu --publish alias --dry-run`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return im.run(cmd, args[0]) },
	}
	s.specFlags(cmd, &im.spec)
	cmd.Flags().BoolVar(&im.remove, "remove", false, "let the named domains drain")
	cmd.Flags().BoolVar(&im.o.DryRun, "dry-run", false, "say what would become of each line, and change nothing")
	cmd.Flags().BoolVar(&im.o.Confirm, "confirm", false, "remove also so many that it looks like a mistake")
	jsonFlag(cmd, eachOnALine+" of the file")
	return cmd
}

// importer is one call of import.
type importer struct {
	s      *server
	spec   httpd.DomainSpec
	remove bool
	o      httpd.BulkOptions
}

// numbered is a line of the file.
type numbered struct {
	number int
	change httpd.ChangeLine
}

func (im *importer) run(cmd *cobra.Command, path string) error {
	lines, err := im.read(cmd, path)
	if err != nil {
		return err
	}
	p := newProgress(cmd.ErrOrStderr(), len(lines))
	counts := make(map[store.Result]int)
	e := json.NewEncoder(cmd.OutOrStdout())
	done := 0
	line := func(i int) httpd.ChangeLine { return lines[i].change }
	err = im.s.client().Bulk(cmd.Context(), im.o, len(lines), line, func(r httpd.DomainResult) error {
		at := lines[done]
		done++
		p.show(done)
		counts[store.Result(r.Result)]++
		if asJSON(cmd) {
			return e.Encode(r)
		}
		if r.Error != "" {
			p.clear()
			fmt.Fprintf(cmd.ErrOrStderr(), "%s:%d: %s\n", path, at.number, r.Error)
		}
		return nil
	})
	p.clear()
	if err != nil {
		return err
	}
	if !asJSON(cmd) {
		fmt.Fprintln(cmd.OutOrStdout(), summed(counts, len(lines), im.o.DryRun))
	}
	if counts[""] > 0 {
		return errFault
	}
	return nil
}

// summed puts into words what became of all lines.
func summed(counts map[store.Result]int, n int, dryRun bool) string {
	var parts []string
	for _, r := range []store.Result{
		store.ResultAdded, store.ResultChanged, store.ResultRestored, store.ResultMoved, store.ResultClaimed, store.ResultRemoved,
		store.ResultWithdrawn, store.ResultUnchanged, "",
	} {
		switch {
		case counts[r] == 0:
		case r == "":
			parts = append(parts, fmt.Sprintf("%d refused", counts[r]))
		default:
			parts = append(parts, fmt.Sprintf("%d %s", counts[r], r))
		}
	}
	s := fmt.Sprintf("%d domains: %s", n, strings.Join(parts, ", "))
	if dryRun {
		s += "; nothing is changed"
	}
	return s
}

// read returns what the file wants. A file without domains is a mistake.
func (im *importer) read(cmd *cobra.Command, path string) (lines []numbered, err error) {
	var text []byte
	if path == "-" {
		text, err = io.ReadAll(cmd.InOrStdin())
	} else {
		text, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, fmt.Errorf("import: %w", err)
	}
	number := 0
	for raw := range bytes.Lines(text) {
		number++
		raw = bytes.TrimSpace(raw)
		if len(raw) == 0 || raw[0] == '#' {
			continue
		}
		c := httpd.ChangeLine{Name: string(raw), DomainSpec: im.spec, Remove: im.remove}
		if raw[0] == '{' {
			if c, err = im.parse(raw); err != nil {
				return nil, fmt.Errorf("import: %s:%d: %w", path, number, err)
			}
		}
		if !c.Remove && (c.MXSet == "" || c.Publish == "") {
			return nil, fmt.Errorf("import: %s:%d: %q has no MX set or way to publish; give --mxset and --publish", path, number, c.Name)
		}
		lines = append(lines, numbered{number, c})
	}
	if len(lines) == 0 {
		return nil, fmt.Errorf("import: %s names no domain", path)
	}
	return lines, nil
}

// parse reads a JSON line. What it does not say, the flags say.
func (im *importer) parse(raw []byte) (httpd.ChangeLine, error) {
	c := httpd.ChangeLine{DomainSpec: im.spec, Remove: im.remove}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		return c, fmt.Errorf("is no change of a domain: %w", err)
	}
	return c, nil
}

// progress says on a terminal how far something is.
type progress struct {
	out   io.Writer // nil: nobody looks
	total int
	shown time.Time
	begun time.Time
}

func newProgress(out io.Writer, total int) *progress {
	p := &progress{total: total, begun: time.Now()}
	if isTerminal(out) {
		p.out = out
	}
	return p
}

// show says that n are done, some times a second.
func (p *progress) show(n int) {
	now := time.Now()
	if p.out == nil || now.Sub(p.shown) < 200*time.Millisecond {
		return
	}
	p.shown = now
	left := time.Duration(float64(now.Sub(p.begun)) / float64(n) * float64(p.total-n)).Round(time.Second)
	fmt.Fprintf(p.out, "\r\x1b[K%d of %d, %v to go", n, p.total, left)
}

// clear takes that away, for something that stays.
func (p *progress) clear() {
	if p.out != nil && !p.shown.IsZero() {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}
