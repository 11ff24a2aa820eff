package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"
)

// lister makes of cmd a command that prints all there are of something: as a table with a line for each below head, or as
// JSON, a line for each.
func lister[T any](
	cmd cobra.Command, head []string, find func(context.Context) ([]T, error), columns func(T) []string,
) *cobra.Command {
	var asJSON bool
	cmd.Args = usageArgs(cobra.NoArgs)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		all, err := find(cmd.Context())
		if err != nil {
			return err
		}
		if asJSON {
			return writeLines(cmd.OutOrStdout(), all)
		}
		w := newTable(cmd.OutOrStdout())
		fmt.Fprintln(w, strings.Join(head, "\t"))
		for _, v := range all {
			fmt.Fprintln(w, strings.Join(columns(v), "\t"))
		}
		return w.Flush()
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, a line for each")
	return &cmd
}

// newTable aligns the columns of lines, which tabs divide.
func newTable(out io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(out, 0, 4, 2, ' ', 0) }

// writeLines prints values as JSON, a line each.
func writeLines[T any](out io.Writer, all []T) error {
	e := json.NewEncoder(out)
	for _, v := range all {
		if err := e.Encode(v); err != nil {
			return err
		}
	}
	return nil
}

// date is a time in a table.
func date(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04Z")
}

// isTerminal says that somebody looks at what is written.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}
