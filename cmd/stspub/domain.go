package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/httpd"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
)

// server is how a command finds the running server.
type server struct{ admin, path string }

func (s *server) flags(cmd *cobra.Command) {
	cmd.PersistentFlags().StringVar(&s.admin, "admin", "", "admin listener of the server, as `unix:PATH` or ADDR:PORT; default: that of --config")
	cmd.PersistentFlags().StringVarP(&s.path, "config", "c", defaultConfig, "configuration `FILE` that names the admin listener")
}

// client speaks to the server. A configuration that is broken still says where the listener is.
func (s *server) client() *httpd.Client {
	switch {
	case s.admin != "":
		return httpd.NewClient(s.admin)
	case os.Getenv("STSPUB_ADMIN") != "":
		return httpd.NewClient(os.Getenv("STSPUB_ADMIN"))
	}
	return httpd.NewClient(config.AdminAddr(s.path))
}

// domainArg is the domain that a command was called with, as A-label.
func domainArg(args []string) (string, error) {
	name, err := policygen.ParseName(args[0])
	if err != nil {
		return "", usageError{err}
	}
	return string(name), nil
}

func (s *server) completeDomain(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), 2*time.Second)
	defer cancel()
	var names []string
	err := s.client().Domains(ctx, false, func(d publish.Status) error {
		if strings.HasPrefix(string(d.Name), prefix) {
			names = append(names, string(d.Name))
		}
		return nil
	})
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func newDomain() *cobra.Command {
	s := &server{}
	cmd := group(&cobra.Command{
		Use: "domain", Short: "Look at the domains of the running server",
		Example: "  stspub domain list --faults\n  stspub domain show example.org",
	}, newDomainList(s), newDomainShow(s), newDomainAdopt(s))
	s.flags(cmd)
	return cmd
}

func newDomainList(s *server) *cobra.Command {
	var faults, asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List domains, a line each",
		Long: `list prints a line for every domain, and first one for every fault of the service as a whole. It ends with 0 also when
there are faults; "stspub check" is the command that judges.`,
		Example: "  stspub domain list\n  stspub domain list --faults --json",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			service, err := s.client().Faults(cmd.Context())
			if err != nil {
				return err
			}
			e := json.NewEncoder(cmd.OutOrStdout())
			for _, subject := range slices.Sorted(maps.Keys(service)) {
				if !asJSON {
					fmt.Fprintf(cmd.OutOrStdout(), "FAULT %s: %s\n", subject, service[subject])
				} else if err := e.Encode(map[string]string{"fault": subject, "reason": service[subject]}); err != nil {
					return err
				}
			}
			if asJSON {
				return s.client().Domains(cmd.Context(), faults, func(d publish.Status) error { return e.Encode(d) })
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 4, 2, ' ', 0)
			fmt.Fprintln(w, "DOMAIN\tMXSET\tPUBLISH\tSTEP\tSINCE\tWAITING FOR")
			err = s.client().Domains(cmd.Context(), faults, func(d publish.Status) error {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", d.Name, d.MXSet, d.Publish, step(d), since(d.Since), d.Reason)
				return nil
			})
			if err != nil {
				return err
			}
			return w.Flush()
		},
	}
	cmd.Flags().BoolVar(&faults, "faults", false, "only those that need a human")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON: a line for each fault of the service, {\"fault\":…,\"reason\":…}, then one for each domain")
	return cmd
}

func step(d publish.Status) string {
	s := d.Step
	if d.Draining && s != publish.StepDrain {
		s += " (draining)"
	}
	if d.Fault {
		s += " !"
	}
	return s
}

func since(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return time.Since(t).Round(time.Second).String()
}

func newDomainShow(s *server) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:               "show DOMAIN",
		Short:             "Show all that is known of one domain",
		Example:           "  stspub domain show example.org",
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
				e := json.NewEncoder(cmd.OutOrStdout())
				e.SetIndent("", "  ")
				return e.Encode(d)
			}
			return writeStatus(cmd.OutOrStdout(), d)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func writeStatus(out io.Writer, d publish.Status) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	line := func(key, value string) {
		if value != "" {
			fmt.Fprintf(w, "%s\t%s\n", key, strings.ReplaceAll(strings.TrimSpace(value), "\r\n", "\n\t"))
		}
	}
	name := string(d.Name)
	if d.Unicode != "" {
		name += " (" + d.Unicode + ")"
	}
	line("domain", name)
	line("step", step(d))
	line("waiting for", d.Reason)
	line("since", since(d.Since))
	line("looked at next", d.Due.UTC().Format(time.DateTime+" MST"))
	line("mx set", d.MXSet)
	line("publish", d.Publish+" (account "+d.Account+")")
	line("certificate", d.Certificate)
	line("record", d.Record)
	line("id", d.ID)
	line("next id", d.Intended)
	line("policy", d.Policy)
	line("owner sets", strings.Join(d.Records, "\r\n"))
	for _, h := range d.History {
		to := "now"
		if !h.To.IsZero() {
			to = h.To.UTC().Format(time.DateTime)
		}
		line("served "+h.From.UTC().Format(time.DateTime)+" to "+to, summary(h))
	}
	return w.Flush()
}

// summary is a policy of the history in a few words.
func summary(h publish.Past) string {
	p, err := policygen.ParsePolicy([]byte(h.Policy))
	s := fmt.Sprintf("%s, max_age %d, mx %s", p.Mode, p.MaxAge, strings.Join(p.MX, " "))
	if err != nil {
		s = "unknown"
	}
	if h.Foreign {
		s += " (by somebody else)"
	}
	return s
}

func newDomainAdopt(s *server) *cobra.Command {
	return &cobra.Command{
		Use:   "adopt DOMAIN",
		Short: "Let a domain take over the record that somebody else published",
		Long: `adopt lets a domain at step "adopt" replace the STSv1 record that was found at its name. It is replaced in one step by
the first id of this server, after the policy is live here; until then it stays.`,
		Example:           "  stspub domain adopt example.org",
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: s.completeDomain,
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := domainArg(args)
			if err != nil {
				return err
			}
			if err := s.client().Adopt(cmd.Context(), name); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s may replace the record that it finds\n", name)
			return nil
		},
	}
}

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
	var hash string
	var asJSON bool
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
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(r)
			}
			return writeReload(cmd.OutOrStdout(), cmd.ErrOrStderr(), r)
		},
	}
	s.flags(cmd)
	cmd.Flags().StringVar(&hash, "force", "", "let through what is refused or held, as listed by the plan of this `HASH`")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
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
