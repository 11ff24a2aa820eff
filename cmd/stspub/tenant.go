package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/stspub/stspub/internal/httpd"
	"github.com/stspub/stspub/internal/store"
)

func newTenant() *cobra.Command {
	s := &server{}
	cmd := group(&cobra.Command{
		Use: "tenant", Short: "Manage the tenants of the running server",
		Long: `A tenant has its own MX sets, domains, accounts and tokens, and sees nothing of another's. What the configuration file
declares belongs to the tenant "default".`,
		Example: "  stspub tenant list\n  stspub tenant add acme --domains 500",
	}, newTenantList(s), newTenantAdd(s), newTenantLimit(s), newTenantRemove(s))
	s.flags(cmd)
	return cmd
}

func newTenantList(s *server) *cobra.Command {
	return lister(cobra.Command{
		Use:     "list",
		Short:   "List tenants, a line each",
		Example: "  stspub tenant list\n  stspub tenant list --json",
	}, []string{"TENANT", "DOMAINS", "MX SETS", "ACCOUNTS", "ORDERS A DAY", "DNS WRITES A DAY", "SINCE"},
		func(ctx context.Context) ([]httpd.TenantInfo, error) { return s.client().Tenants(ctx) },
		func(t httpd.TenantInfo) []string {
			l := t.For(t.Name)
			return []string{
				t.Name, limit(l.Domains), limit(l.MXSets), limit(l.Accounts), used(t.Used.Orders, t.Orders), used(t.Used.Writes, t.Writes), date(t.Created),
			}
		})
}

// limit is what a tenant may take.
func limit(n int) string {
	if n == 0 {
		return "any"
	}
	return strconv.Itoa(n)
}

// used is what a tenant took of what it may take.
func used(n, of int) string {
	if of == 0 {
		return limit(of)
	}
	return fmt.Sprintf("%d of %d", n, of)
}

// limitFlags are what a tenant may take.
func limitFlags(cmd *cobra.Command, l *store.Limits) {
	cmd.Flags().IntVar(&l.Domains, "domains", 0, "how many domains it may have; 0: any number")
	cmd.Flags().IntVar(&l.MXSets, "mxsets", 0, fmt.Sprintf("how many MX sets it may have; 0: %d", store.UsualMXSets))
	cmd.Flags().IntVar(&l.Accounts, "accounts", 0, fmt.Sprintf("how many accounts it may have; 0: %d", store.UsualAccounts))
	cmd.Flags().IntVar(&l.Orders, "orders", 0, "how many first certificates it may order in a day; 0: any number")
	cmd.Flags().IntVar(&l.Writes, "writes", 0, "how many writes to DNS it may cause in a day; 0: any number")
}

// writeTenant says what a tenant is now.
func writeTenant(cmd *cobra.Command, t httpd.TenantInfo) error {
	l := t.For(t.Name)
	return say(cmd, t, "tenant %s may have %s domains, %s MX sets and %s accounts, order %s certificates a day, and cause %s DNS writes a day\n",
		t.Name, limit(l.Domains), limit(l.MXSets), limit(l.Accounts), limit(t.Orders), limit(t.Writes))
}

func newTenantAdd(s *server) *cobra.Command {
	var limits store.Limits
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Add a tenant",
		Long: `add makes a tenant. Its name becomes part of names in DNS: customers of the tenant point their CNAMEs to NAME.HOSTNAME,
so it never changes. Let its panel in with "stspub token add --tenant NAME".`,
		Example:           "  stspub tenant add acme --domains 500",
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := s.client().AddTenant(cmd.Context(), httpd.NewTenant{Name: args[0], Limits: limits})
			if err != nil {
				return err
			}
			return writeTenant(cmd, t)
		},
	}
	limitFlags(cmd, &limits)
	jsonFlag(cmd, "")
	return cmd
}

func newTenantLimit(s *server) *cobra.Command {
	var limits store.Limits
	cmd := &cobra.Command{
		Use:   "limit NAME",
		Short: "Change what a tenant may take",
		Long: `limit sets all limits of a tenant; what is not given has none from then on, and MX sets and
accounts the usual ones, but for the tenant "default". What the tenant has beyond a limit stays.

At the limit of orders first certificates wait, at that of DNS writes changed policies do, until those of the day before count
no more: "stspub domain show" says until when. Renewals, and what keeps records right, never wait for a limit.`,
		Example:           "  stspub tenant limit acme --domains 5000 --orders 200",
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: argument(s.tenants()),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := s.client().LimitTenant(cmd.Context(), args[0], limits)
			if err != nil {
				return err
			}
			return writeTenant(cmd, t)
		},
	}
	limitFlags(cmd, &limits)
	jsonFlag(cmd, "")
	return cmd
}

func newTenantRemove(s *server) *cobra.Command {
	return doer(cobra.Command{
		Use:   "remove NAME",
		Short: "Remove a tenant that has nothing, and revoke its tokens",
		Long: `remove is refused while the tenant has domains, accounts or MX sets. Its domains drain first: senders hold their
policies.`,
		Example: "  stspub tenant remove acme",
	}, s.tenants(), removed, "tenant %s is removed", func(ctx context.Context, name string) error { return s.client().RemoveTenant(ctx, name) })
}
