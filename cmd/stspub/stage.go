package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/stspub/stspub/internal/httpd"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

// doer is a doer for a domain.
func (s *server) doer(cmd cobra.Command, result, words string, do func(context.Context, string) error) *cobra.Command {
	of := doer(cmd, s.completeDomain, result, words, do)
	run := of.RunE
	of.RunE = func(cmd *cobra.Command, args []string) error {
		name, err := domainArg(args)
		if err != nil {
			return err
		}
		return run(cmd, []string{name})
	}
	return of
}

func newDomainAdopt(s *server) *cobra.Command {
	return s.doer(cobra.Command{
		Use:   "adopt DOMAIN",
		Short: "Let a domain take over the record that somebody else published",
		Long: `adopt lets a domain at step "adopt" replace the STSv1 record that was found at its name. It is replaced in one step by
the first id of this server, after the policy is live here; until then it stays.`,
		Example: "  stspub domain adopt example.org",
	}, "allowed", "%s may replace the record that it finds", func(ctx context.Context, name string) error {
		return s.client().Adopt(ctx, name)
	})
}

func newDomainRetry(s *server) *cobra.Command {
	return s.doer(cobra.Command{
		Use:   "retry DOMAIN",
		Short: "Look at a domain now, and order its certificate without a pause",
		Long: `retry has a domain looked at that waits for something which was put right. A certificate that could not be ordered is
tried again at once, not after the pause that grows with each failure: DNS, CAA records and the way to this server are
looked at before, so that nothing is lost if they are as they were.`,
		Example: "  stspub domain retry example.org",
	}, "retried", "%s is looked at now; see: stspub domain show %[1]s", func(ctx context.Context, name string) error {
		return s.client().Retry(ctx, name)
	})
}

func newDomainPromote(s *server) *cobra.Command {
	return s.doer(cobra.Command{
		Use:   "promote DOMAIN",
		Short: "End the roll-out of a domain now: mode enforce",
		Long: `promote gives a domain in mode testing the mode enforce of its MX set before its roll-out is over, or after "demote".
A policy that would strand its mail is held all the same.`,
		Example: "  stspub domain promote example.org",
	}, "promoted", "%s goes to mode enforce", func(ctx context.Context, name string) error {
		return s.client().Promote(ctx, name, false)
	})
}

func newDomainDemote(s *server) *cobra.Command {
	return s.doer(cobra.Command{
		Use:   "demote DOMAIN",
		Short: "Take a domain back to mode testing, until it is promoted",
		Long: `demote takes one domain of an MX set in mode enforce back to mode testing. Senders that hold the old policy enforce it
until they look again, which most do within a day. It stays there until "stspub domain promote".`,
		Example: "  stspub domain demote example.org",
	}, "demoted", "%s goes back to mode testing", func(ctx context.Context, name string) error {
		return s.client().Promote(ctx, name, true)
	})
}

func newDomainRemove(s *server) *cobra.Command {
	var o httpd.RemoveOptions
	var now, yes bool
	cmd := &cobra.Command{
		Use:   "remove DOMAIN",
		Short: "Let a domain drain, or end its drain",
		Long: `remove has a domain drain that was added by "stspub domain add": its policy goes to mode none, and its record and policy
host stay until the last sender has forgotten the old policy. A domain of the configuration drains when it is taken out
there.

remove --now does not wait for that. The record goes at once. Senders that hold the last policy keep to it until it
expires there: they deliver to the MX that it names, and keep mail back from any other.`,
		Example:           "  stspub domain remove example.org\n  stspub domain remove example.org --now",
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: argument(s.completeDomain),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := domainArg(args)
			if err != nil {
				return err
			}
			if now {
				return s.expel(cmd, name, yes)
			}
			r, err := s.client().RemoveDomain(cmd.Context(), name, o)
			if err != nil {
				return err
			}
			return writeResult(cmd, r, o.DryRun)
		},
	}
	cmd.Flags().BoolVar(&now, "now", false, "do not wait until senders have forgotten the policy")
	cmd.Flags().BoolVar(&yes, "yes", false, "with --now: do not ask")
	cmd.Flags().BoolVar(&o.Confirm, "confirm", false, "remove it also where so many were removed in the last hour that it looks like a mistake")
	cmd.Flags().BoolVar(&o.DryRun, "dry-run", false, "say what would become of it, and change nothing")
	jsonFlag(cmd, "")
	cmd.MarkFlagsMutuallyExclusive("now", "dry-run")
	return cmd
}

// expel ends a domain now, whatever senders hold.
func (s *server) expel(cmd *cobra.Command, name string, yes bool) error {
	d, err := s.client().Domain(cmd.Context(), name)
	if err != nil {
		return err
	}
	if !yes {
		if err := confirm(cmd, breaks(d)); err != nil {
			return err
		}
	}
	removes := !d.Draining && d.Owner == store.OwnerAPI
	if removes {
		if _, err := s.client().RemoveDomain(cmd.Context(), name, httpd.RemoveOptions{Confirm: true}); err != nil {
			return err
		}
	}
	err = s.client().Expel(cmd.Context(), name)
	if err != nil && !(removes && errors.Is(err, store.ErrNotFound)) { // one that was never announced has gone by itself
		return err
	}
	return say(cmd, done{name, "ended"}, "%s ends now; see: stspub domain list\n", name)
}

// breaks says what the end of a drain breaks.
func breaks(d publish.Status) string {
	until := "for as long as the max_age of the last policy"
	if !d.Horizon.IsZero() {
		until = "until " + d.Horizon.UTC().Format(time.DateTime+" MST")
	}
	return fmt.Sprintf("Senders that hold a policy of %s keep to it %s, and refuse MX that it does not name.\n"+
		"Its record, policy host and certificate go now, so they cannot learn otherwise.", d.Name, until)
}

// confirm asks on the terminal.
func confirm(cmd *cobra.Command, what string) error {
	fmt.Fprintf(cmd.ErrOrStderr(), "%s\nType yes to go on: ", what)
	line, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
	if err != nil && err != io.EOF {
		return fmt.Errorf("read the answer: %w", err)
	}
	if strings.TrimSpace(line) != "yes" {
		return errors.New("not confirmed; nothing is changed (--yes goes without asking)")
	}
	return nil
}
