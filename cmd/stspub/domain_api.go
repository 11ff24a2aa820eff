package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/stspub/stspub/internal/httpd"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

// specFlags are what is wanted of a domain.
func (s *server) specFlags(cmd *cobra.Command, spec *httpd.DomainSpec) {
	cmd.Flags().StringVar(&spec.MXSet, "mxset", "", "the MX set that its policy is made of, by `NAME`")
	cmd.Flags().StringVar(&spec.Publish, "publish", "", "how its record is reached: `zone`, alias, shared or manual")
	cmd.Flags().StringVar(&spec.Account, "account", "", "with --publish zone: the account that holds the zone, by `NAME`")
	cmd.Flags().StringArrayVar(&spec.TLSRPT, "tlsrpt", nil, "where senders report failures, an `ADDRESS` as mailto: or https:; may be repeated")
	completeFlag(cmd, "mxset", s.mxsets())
	completeFlag(cmd, "account", s.accounts())
	fixed(cmd, "publish", store.PublishZone, store.PublishAlias, store.PublishShared, store.PublishManual)
}

func newDomainAdd(s *server) *cobra.Command {
	var spec httpd.DomainSpec
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "add DOMAIN",
		Short: "Add a domain, or change what is wanted of it",
		Long: `add declares a domain to the running server, as a [[domain]] table of the configuration does. What it was declared before
is replaced. A domain that the configuration declares is changed there.

A domain of a tenant is a claim at first: "stspub records DOMAIN" says what proves it. The tenant "default" needs no proof.`,
		Example:           "  stspub domain add shop.example --mxset eu --publish alias",
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: argument(s.completeDomain),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := domainArg(args)
			if err != nil {
				return err
			}
			if spec.MXSet == "" || spec.Publish == "" {
				return usageError{fmt.Errorf("--mxset and --publish are needed")}
			}
			r, err := s.client().PutDomain(cmd.Context(), name, spec, dryRun)
			if err != nil {
				return err
			}
			return writeResult(cmd, r, dryRun)
		},
	}
	s.specFlags(cmd, &spec)
	cmd.Flags().BoolVar(&spec.Adopt, "adopt", false, "a record that somebody else published may be replaced")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would become of it, and change nothing")
	jsonFlag(cmd, "")
	return cmd
}

// writeResult says what became of a domain.
func writeResult(cmd *cobra.Command, r httpd.DomainResult, dryRun bool) error {
	would := ""
	if dryRun {
		would = "would be "
	}
	next := ""
	switch store.Result(r.Result) {
	case store.ResultAdded, store.ResultChanged, store.ResultRestored:
		next = "; what its owner sets: stspub records " + r.Name
	case store.ResultClaimed:
		next = "; what proves it: stspub records " + r.Name
	case store.ResultRemoved:
		next = "; it drains: stspub domain show " + r.Name
	}
	if dryRun {
		next = ""
	}
	return say(cmd, r, "%s %s%s%s\n", r.Name, would, r.Result, next)
}

func newDomainClaims(s *server) *cobra.Command {
	return lister(cobra.Command{
		Use:     "claims",
		Short:   "List domains that are claimed and not proven, a line each",
		Example: "  stspub domain claims --tenant acme",
	}, []string{"DOMAIN", "MXSET", "PUBLISH", "UNTIL", "WAITING FOR"},
		func(ctx context.Context) ([]publish.Claim, error) { return s.client().Claims(ctx) },
		func(c publish.Claim) []string {
			return []string{string(c.Name), c.MXSet, c.Publish, date(c.Expires), c.Reason}
		})
}

func newDomainRelease(s *server) *cobra.Command {
	var withdraw bool
	cmd := &cobra.Command{
		Use:   "release DOMAIN",
		Short: "Let another tenant have a domain as soon as he proves that it is his",
		Long: `release is the consent to a move: without it a domain goes to another tenant only when it has been removed and drains.
Until the other one has proven it, everything stays as it is.`,
		Example:           "  stspub domain release shop.example",
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: argument(s.completeDomain),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := domainArg(args)
			if err == nil {
				err = s.client().Release(cmd.Context(), name, withdraw)
			}
			switch {
			case err != nil:
				return err
			case withdraw:
				return say(cmd, done{name, "kept"}, "%s stays where it is\n", name)
			}
			return say(cmd, done{name, "released"}, "%s may go to the tenant who proves it\n", name)
		},
	}
	cmd.Flags().BoolVar(&withdraw, "withdraw", false, "take that back")
	jsonFlag(cmd, "")
	return cmd
}

func newDomainExport(s *server) *cobra.Command {
	var all bool
	var q httpd.DomainQuery
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Print the domains of the API as import takes them, a line of JSON each",
		Long: `export prints what the API declared, as JSON lines that "stspub domain import" takes. Those that drain are left out, and
so are permissions to adopt a record: they are for a record that somebody has looked at.`,
		Example: "  stspub domain export > domains.ndjson\n  stspub domain export --mxset eu --all",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			e := json.NewEncoder(cmd.OutOrStdout())
			return s.client().Find(cmd.Context(), q, func(d publish.Status) error {
				if d.Publish == store.PublishWildcard || d.Draining || d.Owner != store.OwnerAPI && !all {
					return nil
				}
				return e.Encode(exported(d))
			})
		},
	}
	cmd.Flags().StringVar(&q.MXSet, "mxset", "", "only those of this MX set, by `NAME`")
	cmd.Flags().BoolVar(&all, "all", false, "those of the configuration file, too")
	completeFlag(cmd, "mxset", s.mxsets())
	return cmd
}

// exported is the line that declares a domain as it is.
func exported(d publish.Status) httpd.ChangeLine {
	spec := httpd.DomainSpec{MXSet: d.MXSet, Publish: d.Publish}
	if d.Publish == store.PublishZone {
		spec.Account = d.Account
	}
	if d.TLSRPT != nil && d.TLSRPT.Text != "" {
		if uris, err := policygen.ParseReport(d.TLSRPT.Text); err == nil { // it is of our own making
			spec.TLSRPT = uris
		}
	}
	return httpd.ChangeLine{Name: string(d.Name), DomainSpec: spec}
}
