package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stspub/stspub/internal/httpd"
	"github.com/stspub/stspub/internal/publish"
)

func newAccount() *cobra.Command {
	s := &server{}
	cmd := group(&cobra.Command{
		Use: "account", Short: "Manage the DNS accounts of the running server",
		Example: "  stspub account list\n  stspub account put main --provider desec --secret-file api_token=/run/secrets/desec --zone example.org",
	}, newAccountList(s), newAccountPut(s), newAccountRemove(s))
	s.flags(cmd)
	s.tenantFlag(cmd, `"default"`)
	return cmd
}

func newAccountList(s *server) *cobra.Command {
	return lister(cobra.Command{
		Use:     "list",
		Short:   "List accounts, a line each, without their secrets",
		Example: "  stspub account list --tenant acme",
	}, []string{"ACCOUNT", "OWNER", "PROVIDER"},
		func(ctx context.Context) ([]publish.Account, error) { return s.client().Accounts(ctx) },
		func(a publish.Account) []string { return []string{a.Name, a.Owner, a.Provider} })
}

func newAccountPut(s *server) *cobra.Command {
	var spec httpd.AccountSpec
	var settings, secrets []string
	cmd := &cobra.Command{
		Use:   "put NAME",
		Short: "Add a DNS account, or replace it",
		Long: `put declares an account at a DNS provider to the running server, as an [account.NAME] table of the configuration does;
docs/providers.md has the keys of each provider. A secret is read from a file here, and goes by its key without the ending
_file or _env. It is kept sealed where [store] has a key, and never shown again.

With --zone the account has to read that zone before it is taken. Without, its provider judges the credentials, where it can;
what came of it is printed. Nothing is written.`,
		Example: `  stspub account put main --provider desec --secret-file api_token=/run/secrets/desec --zone example.org
  stspub account put own --provider rfc2136 --set server=192.0.2.53 --set key_name=stspub --secret-file key=tsig.key`,
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: argument(s.accounts()),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if spec.Settings, err = accountSettings(settings, secrets); err != nil {
				return err
			}
			a, err := s.client().PutAccount(cmd.Context(), args[0], spec)
			if err != nil {
				return err
			}
			return say(cmd, a, "account %s at %s is taken; %s\n", a.Name, a.Provider, a.Check)
		},
	}
	cmd.Flags().StringVar(&spec.Provider, "provider", "", "the DNS provider, by `NAME`")
	cmd.Flags().StringVar(&spec.Zone, "zone", "", "a `ZONE` that it must be able to read")
	cmd.Flags().StringArrayVar(&settings, "set", nil, "a setting as `KEY=VALUE`; may be repeated")
	cmd.Flags().StringArrayVar(&secrets, "secret-file", nil, "a secret setting as `KEY=FILE`; may be repeated")
	jsonFlag(cmd, "")
	return cmd
}

// accountSettings reads settings, and the files with secret ones.
func accountSettings(settings, secrets []string) (map[string]string, error) {
	all := make(map[string]string)
	for _, pair := range settings {
		key, value, found := strings.Cut(pair, "=")
		if !found {
			return nil, usageError{fmt.Errorf("--set: %q is not KEY=VALUE", pair)}
		}
		all[key] = value
	}
	for _, pair := range secrets {
		key, path, found := strings.Cut(pair, "=")
		if !found {
			return nil, usageError{fmt.Errorf("--secret-file: %q is not KEY=FILE", key)}
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("--secret-file: %w", err)
		}
		all[key] = strings.TrimSpace(string(text))
	}
	return all, nil
}

func newAccountRemove(s *server) *cobra.Command {
	return doer(cobra.Command{
		Use:     "remove NAME",
		Short:   "Remove an account that no domain needs",
		Long:    `remove is refused while a domain needs the account, also one that drains: its record is to be deleted at the end.`,
		Example: "  stspub account remove main",
	}, s.accounts(), removed, "account %s is removed", func(ctx context.Context, name string) error { return s.client().RemoveAccount(ctx, name) })
}
