package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/stspub/stspub/internal/store"
	"github.com/stspub/stspub/internal/webhook"
)

func newWebhook() *cobra.Command {
	s := &server{}
	cmd := group(&cobra.Command{
		Use: "webhook", Short: "Manage where the running server sends events",
		Long: `A webhook is a URL that is told of events as they happen: a domain that reaches a step, a fault that is found or cleared, a
promotion that is held, a certificate that fails, a drain that is over. Calls are signed by the Standard Webhooks
specification, repeated until they are taken, and in order for each domain. docs/api.md says how to receive them.

With --tenant it hears of what a tenant has; without, a webhook is of the service, and hears of everything.`,
		Example: "  stspub webhook list --tenant acme\n  stspub webhook put panel --tenant acme --url https://panel.example.net/hooks > secret\n  stspub webhook test panel --tenant acme",
	}, newWebhookList(s), newWebhookShow(s), newWebhookPut(s), newWebhookRemove(s), newWebhookTest(s), newWebhookResume(s))
	s.flags(cmd)
	cmd.PersistentFlags().StringVar(&s.tenant, "tenant", "", "the `TENANT` that is meant; default: that of the token, or else the service as a whole")
	return cmd
}

// completeWebhook completes names of webhooks.
func (s *server) completeWebhook(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	if s.readToken() != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
	defer cancel()
	all, err := s.client().Webhooks(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []string
	for _, i := range all {
		if strings.HasPrefix(i.Name, prefix) {
			names = append(names, i.Name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func newWebhookList(s *server) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List webhooks, a line each, without their secrets",
		Example: "  stspub webhook list\n  stspub webhook list --tenant acme --json",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := s.client().Webhooks(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return writeLines(cmd.OutOrStdout(), all)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 4, 2, ' ', 0)
			fmt.Fprintln(w, "WEBHOOK\tSTATE\tLAST DELIVERY\tLOST\tURL\tPROBLEM")
			for _, i := range all {
				fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\n", i.Name, i.State, date(i.Delivered), i.Lost, i.URL, i.Problem)
			}
			return w.Flush()
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, a line for each")
	return cmd
}

// writeWebhook shows all of a webhook.
func writeWebhook(out io.Writer, i webhook.Info) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintf(w, "webhook\t%s\nurl\t%s\nkinds\t%s\nstate\t%s\n", i.Name, i.URL, strings.Join(i.Kinds, "\n\t"), i.State)
	for _, line := range [][2]string{
		{"problem", i.Problem},
		{"since", date(i.Since)},
		{"next try", date(i.Next)},
		{"failures in a row", strconv.Itoa(i.Failures)},
		{"names that wait", strconv.Itoa(i.Waiting)},
		{"lost events", strconv.FormatInt(i.Lost, 10)},
		{"old secret until", date(i.OldSecret)},
		{"last delivery", date(i.Delivered)},
	} {
		if line[1] != "" && line[1] != "-" && line[1] != "0" {
			fmt.Fprintf(w, "%s\t%s\n", line[0], line[1])
		}
	}
	return w.Flush()
}

func newWebhookShow(s *server) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:               "show NAME",
		Short:             "Show one webhook, and why it fails if it does",
		Example:           "  stspub webhook show panel --tenant acme",
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: s.completeWebhook,
		RunE: func(cmd *cobra.Command, args []string) error {
			i, err := s.client().Webhook(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(i)
			}
			return writeWebhook(cmd.OutOrStdout(), i)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func newWebhookPut(s *server) *cobra.Command {
	var spec webhook.Spec
	var rotate, asJSON bool
	cmd := &cobra.Command{
		Use:   "put NAME",
		Short: "Add a webhook and print its secret, or change it",
		Long: `put has events sent to a URL from now on. A new webhook's secret is printed on standard output, and nothing else there. It is
shown this once: who loses it puts the webhook again with --rotate. Then calls have two signatures for a day, so that the
receiver can change over.

Without --kind those events are sent that somebody may have to act on; "stspub webhook show" lists them.`,
		Example: `  stspub webhook put panel --tenant acme --url https://panel.example.net/hooks > secret
  stspub webhook put panel --tenant acme --url https://panel.example.net/hooks --rotate > secret
  stspub webhook put pager --url https://pager.example.net/v1 --kind domain.fault --kind certificate.failing`,
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: s.completeWebhook,
		RunE: func(cmd *cobra.Command, args []string) error {
			if spec.URL == "" {
				return usageError{fmt.Errorf("--url is needed")}
			}
			i, err := s.client().PutWebhook(cmd.Context(), args[0], spec, rotate)
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(i)
			}
			if i.Secret == "" {
				fmt.Fprintf(cmd.OutOrStdout(), "webhook %s is %s, and keeps its secret\n", i.Name, i.State)
				return nil
			}
			fmt.Fprintln(cmd.OutOrStdout(), i.Secret)
			fmt.Fprintf(cmd.ErrOrStderr(), "this is the only time that it is shown; to try it: stspub webhook test %s\n", i.Name)
			return nil
		},
	}
	cmd.Flags().StringVar(&spec.URL, "url", "", "the `URL` that is called, https only")
	cmd.Flags().StringSliceVar(&spec.Kinds, "kind", nil, "send events of this `KIND`; may be repeated; default: those that somebody may have to act on")
	cmd.Flags().BoolVar(&rotate, "rotate", false, "make another secret; the one before signs too for a day")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	_ = cmd.RegisterFlagCompletionFunc("kind", cobra.FixedCompletions(store.Kinds(), cobra.ShellCompDirectiveNoFileComp)) // only a flag that is not there is an error
	return cmd
}

func newWebhookRemove(s *server) *cobra.Command {
	return &cobra.Command{
		Use:               "remove NAME",
		Short:             "Remove a webhook, with what it has not delivered",
		Example:           "  stspub webhook remove panel --tenant acme",
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: s.completeWebhook,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := s.client().RemoveWebhook(cmd.Context(), args[0]); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "webhook %s is removed\n", args[0])
			return nil
		},
	}
}

func newWebhookTest(s *server) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:               "test NAME",
		Short:             "Send a test to a webhook now, and say what came of it",
		Long:              `test makes a signed call of type "webhook.test", whatever else waits. The exit code is 1 if it is not taken.`,
		Example:           "  stspub webhook test panel --tenant acme",
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: s.completeWebhook,
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := s.client().TestWebhook(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			switch {
			case asJSON:
				err = json.NewEncoder(cmd.OutOrStdout()).Encode(t)
			case t.Taken:
				fmt.Fprintf(cmd.OutOrStdout(), "webhook %s took it: status %d, after %d ms\n", args[0], t.Status, t.Millis)
			default:
				fmt.Fprintf(cmd.OutOrStdout(), "webhook %s did not take it after %d ms: %s\n", args[0], t.Millis, t.Problem)
			}
			if err == nil && !t.Taken {
				err = errFault
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func newWebhookResume(s *server) *cobra.Command {
	return &cobra.Command{
		Use:   "resume NAME",
		Short: "Have a webhook that paused or fails go on now",
		Long: `resume has everything that waits sent at once. A webhook pauses when its receiver answers 410 Gone; one that fails otherwise
goes on by itself.`,
		Example:           "  stspub webhook resume panel --tenant acme",
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: s.completeWebhook,
		RunE: func(cmd *cobra.Command, args []string) error {
			i, err := s.client().ResumeWebhook(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "webhook %s goes on\n", i.Name)
			return nil
		},
	}
}
