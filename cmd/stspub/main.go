// Command stspub publishes MTA-STS policies (RFC 8461) for the domains of a mail hoster.
//
// It prints results on standard output and everything else on standard error. The exit code is 0 when all is good, 1 for
// a fault, and 2 when it was called wrongly.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// errFault ends a command with exit code 1 when what it printed says all there is to say.
var errFault = errors.New("fault")

// usageError is a call that cannot be understood.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	var usage usageError
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errFault):
		return 1
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "stspub: %v\nstspub: hint: %s --help\n", err, cmd.CommandPath())
		return 2
	}
	fmt.Fprintf(stderr, "stspub: %v\n", err)
	return 1
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "stspub",
		Short: "Publish MTA-STS policies, and keep them right",
		Long: `stspub publishes MTA-STS (RFC 8461) for domains that receive mail: it serves their policies over HTTPS with
certificates it obtains by itself, and changes the id in their _mta-sts TXT records whenever a policy changes: policy
first, seen from outside, record after, seen at every name server.`,
		Example: `  stspub dev                                  # the whole thing on this machine, nothing to configure
  stspub serve                                # the production server
  stspub check example.org                    # what a sender sees`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          usageArgs(cobra.NoArgs),
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(
		newServe(), newDev(), newCheck(), newDomain(), newCerts(), newPlan(), newReload(), newRecords(),
		newMXSet(), newAccount(), newTenant(), newToken(), newWebhook(), newNode(), newEvents(), newConfig(),
		newBackup(), newRestore(), newMigrate(), newHealthcheck(), newVersion(),
	)
	return root
}

// usageArgs has wrong arguments end with exit code 2.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError{err}
		}
		return nil
	}
}

// group is a command that only holds others.
func group(cmd *cobra.Command, members ...*cobra.Command) *cobra.Command {
	cmd.Args = usageArgs(cobra.NoArgs)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		_ = cmd.Help()
		return usageError{fmt.Errorf("%s needs a command", cmd.Name())}
	}
	cmd.AddCommand(members...)
	return cmd
}

// newLogger logs as text to a terminal, and as JSON elsewhere.
func newLogger(w io.Writer, verbose bool) *slog.Logger {
	o := &slog.HandlerOptions{Level: slog.LevelInfo}
	if verbose {
		o.Level = slog.LevelDebug
	}
	if isTerminal(w) {
		return slog.New(slog.NewTextHandler(w, o))
	}
	return slog.New(slog.NewJSONHandler(w, o))
}

// version is the module's version, and the commit where it was built from one.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	if v == "" {
		v = "(devel)"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			v += " " + s.Value
		}
	}
	return v
}

// built is the time of the commit that this was built from; zero: it was built from none.
func built() time.Time {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return time.Time{}
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.time" {
			if at, err := time.Parse(time.RFC3339, s.Value); err == nil {
				return at
			}
		}
	}
	return time.Time{}
}

// versionOf is the result of version.
type versionOf struct {
	Version string    `json:"version"`        // the module's, and the commit where it was built from one
	Built   time.Time `json:"built,omitzero"` // the time of that commit
}

func newVersion() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  stspub version\n  stspub version --json",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := version()
			return say(cmd, versionOf{Version: v, Built: built()}, "stspub %s\n", v)
		},
	}
	jsonFlag(cmd, "")
	return cmd
}
