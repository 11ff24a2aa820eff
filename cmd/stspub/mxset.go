package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/httpd"
	"github.com/stspub/stspub/internal/publish"
)

func newMXSet() *cobra.Command {
	s := &server{}
	cmd := group(&cobra.Command{
		Use: "mxset", Short: "Manage the MX sets of the running server",
		Example: "  stspub mxset list\n  stspub mxset put eu --mx mx1.example.net --mode enforce --max-age 2w",
	}, newMXSetList(s), newMXSetShow(s), newMXSetPut(s), newMXSetRemove(s))
	s.flags(cmd)
	s.tenantFlag(cmd, `"default"`)
	return cmd
}

// seconds is a duration as people write it.
func seconds(n int64) string {
	for _, unit := range []struct {
		length int64
		name   string
	}{{7 * 86400, "w"}, {86400, "d"}, {3600, "h"}, {60, "m"}} {
		if n >= unit.length && n%unit.length == 0 {
			return fmt.Sprintf("%d%s", n/unit.length, unit.name)
		}
	}
	return fmt.Sprintf("%ds", n)
}

func newMXSetList(s *server) *cobra.Command {
	return lister(cobra.Command{
		Use:     "list",
		Short:   "List MX sets, a line each",
		Example: "  stspub mxset list\n  stspub mxset list --tenant acme --json",
	}, []string{"MXSET", "OWNER", "MODE", "MAX AGE", "ROLL-OUT", "MX"},
		func(ctx context.Context) ([]publish.MXSet, error) { return s.client().MXSets(ctx) },
		func(m publish.MXSet) []string {
			return []string{m.Name, m.Owner, string(m.Mode), seconds(int64(m.MaxAge)), seconds(m.Rollout), strings.Join(m.MX, " ")}
		})
}

func newMXSetShow(s *server) *cobra.Command {
	cmd := &cobra.Command{
		Use:               "show NAME",
		Short:             "Show one MX set",
		Example:           "  stspub mxset show eu",
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: argument(s.mxsets()),
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := s.client().MXSet(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return output(cmd, m, func(out io.Writer) error {
				w := newTable(out)
				fmt.Fprintf(w, "mx set\t%s\nowner\t%s\nmode\t%s\nmax age\t%s\nroll-out\t%s\nmx\t%s\n",
					m.Name, m.Owner, m.Mode, seconds(int64(m.MaxAge)), seconds(m.Rollout), strings.Join(m.MX, "\n\t"))
				return w.Flush()
			})
		},
	}
	jsonFlag(cmd, "")
	return cmd
}

func newMXSetPut(s *server) *cobra.Command {
	var spec httpd.MXSetSpec
	var maxAge, rollout string
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "put NAME",
		Short: "Add an MX set, or change it as a whole",
		Long: `put declares an MX set to the running server, as an [mxset.NAME] table of the configuration does. It replaces what the API
declared before; one of the configuration is changed there.

--dry-run says what that would do with its domains: which rotate, until when an MX that leaves has to stay in service, and
which would be held, because their MX in DNS are not covered.`,
		Example: `  stspub mxset put eu --mx mx1.example.net --mx mx2.example.net --mode enforce --max-age 2w --rollout 2w
  stspub mxset put eu --mx mx2.example.net --mode enforce --max-age 2w --dry-run`,
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: argument(s.mxsets()),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := durations(&spec, maxAge, rollout); err != nil {
				return usageError{err}
			}
			if dryRun {
				p, err := s.client().PlanMXSet(cmd.Context(), args[0], spec)
				if err != nil {
					return err
				}
				return output(cmd, p, func(out io.Writer) error {
					if len(p.Lines()) == 0 {
						fmt.Fprintln(out, "no domain changes")
					}
					return p.WriteText(out)
				})
			}
			m, err := s.client().PutMXSet(cmd.Context(), args[0], spec)
			if err != nil {
				return err
			}
			return say(cmd, m, "mx set %s is in mode %s with %s\n", m.Name, m.Mode, strings.Join(m.MX, " "))
		},
	}
	cmd.Flags().StringArrayVar(&spec.MX, "mx", nil, "an MX `HOST`, or a pattern like *.example.net; may be repeated")
	cmd.Flags().StringVar(&spec.Mode, "mode", "", "`enforce`, testing or none")
	cmd.Flags().StringVar(&maxAge, "max-age", "", "how long senders keep the policy, a `DURATION` as in 2w")
	cmd.Flags().StringVar(&rollout, "rollout", "", "how long a domain is in mode testing before mode enforce, a `DURATION`; default: not at all")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what that would do, and change nothing")
	jsonFlag(cmd, "")
	fixed(cmd, "mode", "enforce", "testing", "none")
	return cmd
}

// durations reads those of an MX set.
func durations(spec *httpd.MXSetSpec, maxAge, rollout string) error {
	if spec.Mode == "" || maxAge == "" || len(spec.MX) == 0 {
		return errors.New("--mx, --mode and --max-age are needed")
	}
	age, err := config.ParseDuration(maxAge)
	if err != nil {
		return fmt.Errorf("--max-age: %q: %w", maxAge, err)
	}
	spec.MaxAge = int(age / time.Second)
	if rollout == "" {
		return nil
	}
	d, err := config.ParseDuration(rollout)
	if err != nil {
		return fmt.Errorf("--rollout: %q: %w", rollout, err)
	}
	spec.Rollout = int64(d / time.Second)
	return nil
}

func newMXSetRemove(s *server) *cobra.Command {
	return doer(cobra.Command{
		Use:     "remove NAME",
		Short:   "Remove an MX set that no domain is on",
		Example: "  stspub mxset remove eu",
	}, s.mxsets(), removed, "mx set %s is removed", func(ctx context.Context, name string) error { return s.client().RemoveMXSet(ctx, name) })
}
