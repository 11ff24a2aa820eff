package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

func newRecords() *cobra.Command {
	s := &server{}
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "records DOMAIN",
		Short: "Print what the owner of a domain puts into DNS, as zone-file lines",
		Long: `records prints the records that the owner of a domain sets, as lines of a zone file. What must wait is a comment that
says for what.`,
		Example:           "  stspub records example.org\n  stspub records example.org --json",
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: s.completeDomain,
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := domainArg(args)
			if err != nil {
				return err
			}
			d, err := s.client().Domain(cmd.Context(), name)
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(d.Records)
			}
			for _, r := range d.Records {
				fmt.Fprintln(cmd.OutOrStdout(), r)
			}
			return nil
		},
	}
	s.flags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON array of the lines")
	return cmd
}

func newReload() *cobra.Command {
	s := &server{}
	var force, asJSON bool
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Have the server read its configuration again",
		Long: `reload has the running server read its configuration again, as SIGHUP does, and prints what that changed. A broken
configuration changes nothing. So does one that looks like a mistake: one that removes more than ten domains, and more
than one in a hundred, at once.

A policy that leaves out an MX of a domain is taken, but held for that domain: senders would refuse its mail.

--force lets through what is refused or held at this moment, including deletions that wait for a confirmation after a
jump of the clock or a restored store. Look at "stspub domain list --faults" first.`,
		Example: "  stspub reload\n  stspub reload --force",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := s.client().Reload(cmd.Context(), force)
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(r)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%d domains added, %d changed, %d removed, %d restored\n", r.Added, r.Changed, r.Removed, r.Restored)
			if r.Changed > 0 && !force {
				fmt.Fprintln(cmd.ErrOrStderr(), `hint: what is held of it shows in "stspub domain list --faults", and a later "stspub reload --force" lets it through`)
			}
			for _, f := range r.Forced {
				fmt.Fprintln(cmd.OutOrStdout(), "forced:", f)
			}
			for _, w := range r.Warnings {
				fmt.Fprintln(cmd.ErrOrStderr(), "warning:", w)
			}
			return nil
		},
	}
	s.flags(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "let through what is refused or held now")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
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
