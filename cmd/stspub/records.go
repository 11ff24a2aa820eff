package main

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"time"

	"github.com/spf13/cobra"

	"github.com/stspub/stspub/internal/publish"
)

func newRecords() *cobra.Command {
	s := &server{}
	cmd := &cobra.Command{
		Use:   "records DOMAIN",
		Short: "Print what the owner of a domain puts into DNS, as zone-file lines",
		Long: `records prints the records that the owner of a domain sets, as lines of a zone file. What must wait is a comment that
says for what.`,
		Example:           "  stspub records example.org\n  stspub records example.org --json",
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: argument(s.completeDomain),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := domainArg(args)
			if err != nil {
				return err
			}
			d, err := s.client().Records(cmd.Context(), name)
			if err != nil {
				return err
			}
			return output(cmd, d, func(out io.Writer) error {
				for _, r := range d.Records {
					fmt.Fprintln(out, r)
				}
				return nil
			})
		},
	}
	s.flags(cmd)
	s.tenantFlag(cmd, `"default"`)
	jsonFlag(cmd, "")
	return cmd
}

func newReload() *cobra.Command {
	s := &server{}
	var hash string
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Have the server read its configuration again",
		Long: `reload has the running server read its configuration again, as SIGHUP does, and prints what that changes. A broken
configuration changes nothing. So does one that looks like a mistake: one that removes more than ten domains, and more
than one in a hundred, at once, and one whose policies leave out MX that are in the DNS of domains: senders would refuse
their mail.

"stspub plan" says beforehand what a reload would do. --force takes the hash that it prints, and lets through what it
lists as stranded, removed or held, including deletions that wait for a confirmation after a jump of the clock or a
restored store. If any of that has changed since, nothing is done.`,
		Example: "  stspub reload\n  stspub reload --force 0123456789abcdef     # as stspub plan prints it",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("force") && !regexp.MustCompile(`^[0-9a-f]{16}$`).MatchString(hash) {
				return usageError{fmt.Errorf("--force: %q is no hash of a plan; look at what would be let through: stspub plan", hash)}
			}
			r, err := s.client().Reload(cmd.Context(), hash)
			if err != nil {
				return err
			}
			return output(cmd, r, func(out io.Writer) error { return writeReload(out, cmd.ErrOrStderr(), r) })
		},
	}
	s.flags(cmd)
	cmd.Flags().StringVar(&hash, "force", "", "let through what is refused or held, as listed by the plan of this `HASH`")
	jsonFlag(cmd, "")
	return cmd
}

func writeReload(out, errs io.Writer, r publish.ReloadReport) error {
	fmt.Fprintf(out, "%d domains added, %d changed, %d removed, %d restored\n", r.Added, r.Changed, r.Removed, r.Restored)
	if r.Plan != nil {
		if err := r.Plan.WriteText(out); err != nil {
			return err
		}
	}
	for _, f := range r.Forced {
		fmt.Fprintln(out, "forced:", f)
	}
	for _, w := range r.Warnings {
		fmt.Fprintln(errs, "warning:", w)
	}
	return nil
}

func newHealthcheck() *cobra.Command {
	s := &server{}
	cmd := &cobra.Command{
		Use:     "healthcheck",
		Short:   "Ask the running server whether it is alive, for containers",
		Example: "  stspub healthcheck && echo alive",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), 5*time.Second)
			defer cancel()
			return s.client().Healthz(ctx)
		},
	}
	s.flags(cmd)
	return cmd
}
