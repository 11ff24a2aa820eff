package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

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
	s.tenantFlag(cmd, "the service as a whole")
	return cmd
}

func newWebhookList(s *server) *cobra.Command {
	return lister(cobra.Command{
		Use:     "list",
		Short:   "List webhooks, a line each, without their secrets",
		Example: "  stspub webhook list\n  stspub webhook list --tenant acme --json",
	}, []string{"WEBHOOK", "STATE", "LAST DELIVERY", "LOST", "URL", "PROBLEM"},
		func(ctx context.Context) ([]webhook.Info, error) { return s.client().Webhooks(ctx) },
		func(i webhook.Info) []string {
			return []string{i.Name, i.State, date(i.Delivered), strconv.FormatInt(i.Lost, 10), i.URL, i.Problem}
		})
}

// writeWebhook shows all of a webhook.
func writeWebhook(out io.Writer, i webhook.Info) error {
	w := newTable(out)
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
	cmd := &cobra.Command{
		Use:               "show NAME",
		Short:             "Show one webhook, and why it fails if it does",
		Example:           "  stspub webhook show panel --tenant acme",
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: argument(s.webhooks()),
		RunE: func(cmd *cobra.Command, args []string) error {
			i, err := s.client().Webhook(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return output(cmd, i, func(out io.Writer) error { return writeWebhook(out, i) })
		},
	}
	jsonFlag(cmd, "")
	return cmd
}

func newWebhookPut(s *server) *cobra.Command {
	var spec webhook.Spec
	var rotate bool
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
		ValidArgsFunction: argument(s.webhooks()),
		RunE: func(cmd *cobra.Command, args []string) error {
			if spec.URL == "" {
				return usageError{fmt.Errorf("--url is needed")}
			}
			i, err := s.client().PutWebhook(cmd.Context(), args[0], spec, rotate)
			if err != nil {
				return err
			}
			return output(cmd, i, func(out io.Writer) error {
				if i.Secret == "" {
					_, err := fmt.Fprintf(out, "webhook %s is %s, and keeps its secret\n", i.Name, i.State)
					return err
				}
				fmt.Fprintf(cmd.ErrOrStderr(), "this is the only time that it is shown; to try it: stspub webhook test %s\n", i.Name)
				_, err := fmt.Fprintln(out, i.Secret)
				return err
			})
		},
	}
	cmd.Flags().StringVar(&spec.URL, "url", "", "the `URL` that is called, https only")
	cmd.Flags().StringSliceVar(&spec.Kinds, "kind", nil, "send events of this `KIND`; may be repeated; default: those that somebody may have to act on")
	cmd.Flags().BoolVar(&rotate, "rotate", false, "make another secret; the one before signs too for a day")
	jsonFlag(cmd, "")
	fixed(cmd, "kind", store.Kinds()...)
	return cmd
}

func newWebhookRemove(s *server) *cobra.Command {
	return doer(cobra.Command{
		Use:     "remove NAME",
		Short:   "Remove a webhook, with what it has not delivered",
		Example: "  stspub webhook remove panel --tenant acme",
	}, s.webhooks(), removed, "webhook %s is removed", func(ctx context.Context, name string) error { return s.client().RemoveWebhook(ctx, name) })
}

func newWebhookTest(s *server) *cobra.Command {
	cmd := &cobra.Command{
		Use:               "test NAME",
		Short:             "Send a test to a webhook now, and say what came of it",
		Long:              `test makes a signed call of type "webhook.test", whatever else waits. The exit code is 1 if it is not taken.`,
		Example:           "  stspub webhook test panel --tenant acme",
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: argument(s.webhooks()),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := s.client().TestWebhook(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if t.Taken {
				return say(cmd, t, "webhook %s took it: status %d, after %d ms\n", args[0], t.Status, t.Millis)
			}
			if err := say(cmd, t, "webhook %s did not take it after %d ms: %s\n", args[0], t.Millis, t.Problem); err != nil {
				return err
			}
			return errFault
		},
	}
	jsonFlag(cmd, "")
	return cmd
}

func newWebhookResume(s *server) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "resume NAME",
		Short: "Have a webhook that paused or fails go on now",
		Long: `resume has everything that waits sent at once. A webhook pauses when its receiver answers 410 Gone; one that fails otherwise
goes on by itself.`,
		Example:           "  stspub webhook resume panel --tenant acme",
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: argument(s.webhooks()),
		RunE: func(cmd *cobra.Command, args []string) error {
			i, err := s.client().ResumeWebhook(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return say(cmd, i, "webhook %s goes on\n", i.Name)
		},
	}
	jsonFlag(cmd, "")
	return cmd
}
