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

// jsonFlag gives a command --json. Shape says what it prints then, where that is more than one object.
func jsonFlag(cmd *cobra.Command, shape string) { cmd.Flags().Bool("json", false, "print JSON"+shape) }

// eachOnALine is the shape of lists.
const eachOnALine = ", a line for each"

// asJSON says whether JSON is wanted.
func asJSON(cmd *cobra.Command) bool {
	wanted, err := cmd.Flags().GetBool("json")
	return err == nil && wanted
}

// output prints the result of a command, with --json as an object on a line, else in words.
func output(cmd *cobra.Command, result any, words func(io.Writer) error) error {
	if asJSON(cmd) {
		return json.NewEncoder(cmd.OutOrStdout()).Encode(result)
	}
	return words(cmd.OutOrStdout())
}

// say is output for a result that takes few words.
func say(cmd *cobra.Command, result any, format string, args ...any) error {
	return output(cmd, result, func(out io.Writer) error {
		_, err := fmt.Fprintf(out, format, args...)
		return err
	})
}

// done is the result of a command that has something done with one thing.
type done struct {
	Name   string `json:"name"`   // as the command was called with
	Result string `json:"result"` // what was done, as removed
}

const removed = "removed"

// doer makes of cmd a command that has something done with the one thing that it names, and says so: as its result, or by
// the format words with the name.
func doer(
	cmd cobra.Command, complete cobra.CompletionFunc, result, words string, do func(ctx context.Context, name string) error,
) *cobra.Command {
	cmd.Args, cmd.ValidArgsFunction = usageArgs(cobra.ExactArgs(1)), argument(complete)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := do(cmd.Context(), args[0]); err != nil {
			return err
		}
		return say(cmd, done{args[0], result}, words+"\n", args[0])
	}
	jsonFlag(&cmd, "")
	return &cmd
}

// lister makes of cmd a command that prints all there are of something: as a table with a line for each below head, or as
// JSON, a line for each.
func lister[T any](
	cmd cobra.Command, head []string, find func(context.Context) ([]T, error), columns func(T) []string,
) *cobra.Command {
	cmd.Args = usageArgs(cobra.NoArgs)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		all, err := find(cmd.Context())
		if err != nil {
			return err
		}
		if asJSON(cmd) {
			return writeLines(cmd.OutOrStdout(), all)
		}
		w := newTable(cmd.OutOrStdout())
		fmt.Fprintln(w, strings.Join(head, "\t"))
		for _, v := range all {
			fmt.Fprintln(w, strings.Join(columns(v), "\t"))
		}
		return w.Flush()
	}
	jsonFlag(&cmd, eachOnALine)
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
