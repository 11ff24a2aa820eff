package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/stspub/stspub/internal/httpd"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/webhook"
)

// Nobody waits longer for a completion, or reads more of them.
const (
	completionTime = 2 * time.Second
	completions    = 200
)

// complete returns what find finds, in time and with the token.
func (s *server) complete(cmd *cobra.Command, find func(context.Context) ([]string, error)) ([]string, cobra.ShellCompDirective) {
	if s.readToken() != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
	defer cancel()
	found, err := find(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return found, cobra.ShellCompDirectiveNoFileComp
}

// argument completes the first argument, and no other.
func argument(complete cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return complete(cmd, args, prefix)
	}
}

// completer completes the names of what find finds; "" is none.
func completer[T any](s *server, find func(*httpd.Client, context.Context) ([]T, error), name func(T) string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
		return s.complete(cmd, func(ctx context.Context) (names []string, err error) {
			all, err := find(s.client(), ctx)
			for _, v := range all {
				if n := name(v); n != "" && strings.HasPrefix(n, prefix) {
					names = append(names, n)
				}
			}
			return names, err
		})
	}
}

// completeDomain asks for those with a prefix only: there may be a million.
func (s *server) completeDomain(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	return s.complete(cmd, func(ctx context.Context) (names []string, err error) {
		err = s.client().Find(ctx, httpd.DomainQuery{Prefix: prefix, Limit: completions}, func(d publish.Status) error {
			names = append(names, string(d.Name))
			return nil
		})
		return names, err
	})
}

func (s *server) mxsets() cobra.CompletionFunc {
	return completer(s, (*httpd.Client).MXSets, func(m publish.MXSet) string { return m.Name })
}

func (s *server) accounts() cobra.CompletionFunc {
	return completer(s, (*httpd.Client).Accounts, func(a publish.Account) string { return a.Name })
}

func (s *server) tenants() cobra.CompletionFunc {
	return completer(s, (*httpd.Client).Tenants, func(t httpd.TenantInfo) string { return t.Name })
}

// tokens are those that have not ended, with who has them.
func (s *server) tokens() cobra.CompletionFunc {
	return completer(s, (*httpd.Client).Tokens, func(t httpd.TokenInfo) string {
		if !t.Revoked.IsZero() || !t.Expires.IsZero() && t.Expires.Before(time.Now()) {
			return ""
		}
		return cobra.CompletionWithDesc(t.ID, printable(t.Label))
	})
}

func (s *server) webhooks() cobra.CompletionFunc {
	return completer(s, (*httpd.Client).Webhooks, func(i webhook.Info) string { return i.Name })
}

func (s *server) nodes() cobra.CompletionFunc {
	return completer(s, (*httpd.Client).Nodes, func(n publish.NodeStatus) string { return n.ID })
}

// fixed completes a flag with words that are known.
func fixed(cmd *cobra.Command, flag string, words ...string) {
	completeFlag(cmd, flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
}

// completeFlag completes the value of a flag.
func completeFlag(cmd *cobra.Command, flag string, complete cobra.CompletionFunc) {
	_ = cmd.RegisterFlagCompletionFunc(flag, complete) // only a flag that is not there is an error
}
