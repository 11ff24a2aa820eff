package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/httpd"
	"github.com/stspub/stspub/internal/store"
)

func newToken() *cobra.Command {
	s := &server{}
	cmd := group(&cobra.Command{
		Use: "token", Short: "Manage the tokens of the admin API",
		Long: `A token lets a program in to the admin API: for the service as a whole, or with --tenant for one tenant. On the admin
socket none is needed. On a loopback port none is needed until the first one is made.`,
		Example: "  stspub token list --tenant acme\n  stspub token add --tenant acme --label \"panel of acme\"",
	}, newTokenList(s), newTokenAdd(s), newTokenRevoke(s))
	s.flags(cmd)
	s.tenantFlag(cmd, "the service as a whole")
	return cmd
}

func newTokenList(s *server) *cobra.Command {
	return lister(cobra.Command{
		Use:     "list",
		Short:   "List the tokens of the service, or of a tenant, a line each",
		Example: "  stspub token list\n  stspub token list --tenant acme --json",
	}, []string{"ID", "ROLE", "SINCE", "UNTIL", "LAST USE", "LABEL"},
		func(ctx context.Context) ([]httpd.TokenInfo, error) { return s.client().Tokens(ctx) },
		func(t httpd.TokenInfo) []string {
			return []string{t.ID, t.Role, date(t.Created), until(t, time.Now()), date(t.Used), t.Label}
		})
}

// until is when a token ends, or why it has.
func until(t httpd.TokenInfo, now time.Time) string {
	switch {
	case !t.Revoked.IsZero():
		return "revoked " + date(t.Revoked)
	case !t.Expires.IsZero() && !now.Before(t.Expires):
		return "expired " + date(t.Expires)
	}
	return date(t.Expires)
}

func newTokenAdd(s *server) *cobra.Command {
	var role, label, expires string
	cmd := &cobra.Command{
		Use:   "add",
		Short: "Make a token, and print it this once",
		Long: `add prints a new token on standard output, and nothing else there. It is not kept: who loses it makes another one, and
revokes this.`,
		Example: `  stspub token add --tenant acme --label "panel of acme" --expires 1w > token
  stspub token add --role read --label monitoring`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			n := httpd.NewToken{Role: role, Label: label}
			if role != store.RoleAdmin && role != store.RoleRead {
				return usageError{fmt.Errorf("--role: %q is neither %q nor %q", role, store.RoleAdmin, store.RoleRead)}
			}
			if expires != "" {
				d, err := config.ParseDuration(expires)
				if err != nil {
					return usageError{fmt.Errorf("--expires: %q: %w", expires, err)}
				}
				n.Expires = time.Now().Add(d)
			}
			t, err := s.client().AddToken(cmd.Context(), n)
			if err != nil {
				return err
			}
			return output(cmd, t, func(out io.Writer) error {
				fmt.Fprintf(cmd.ErrOrStderr(), "this is the only time that it is shown; to end it: stspub token revoke %s\n", t.ID)
				_, err := fmt.Fprintln(out, t.Token)
				return err
			})
		},
	}
	cmd.Flags().StringVar(&role, "role", store.RoleAdmin, "what it allows: `admin` or read")
	cmd.Flags().StringVar(&label, "label", "", "who has it, for people")
	cmd.Flags().StringVar(&expires, "expires", "", "end it after this `DURATION`, as in 90d; default: never")
	fixed(cmd, "role", store.RoleAdmin, store.RoleRead)
	jsonFlag(cmd, "")
	return cmd
}

func newTokenRevoke(s *server) *cobra.Command {
	return doer(cobra.Command{
		Use:     "revoke ID",
		Short:   "Revoke a token, and those made with it, at once",
		Example: "  stspub token revoke abcdefghijkl",
	}, s.tokens(), "revoked", "token %s is revoked", func(ctx context.Context, id string) error { return s.client().RevokeToken(ctx, id) })
}
