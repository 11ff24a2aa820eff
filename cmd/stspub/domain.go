package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/httpd"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

// server is how a command finds the running server, and who it is there.
type server struct{ admin, path, tokenFile, tenant, token string }

func (s *server) flags(cmd *cobra.Command) {
	cmd.PersistentFlags().StringVarP(&s.path, "config", "c", defaultConfig, "configuration `FILE` that names the admin listener")
	s.adminFlags(cmd)
}

// adminFlags are for commands that read a configuration by themselves, too.
func (s *server) adminFlags(cmd *cobra.Command) {
	f := cmd.PersistentFlags()
	f.StringVar(&s.admin, "admin", "", "admin listener of the server, as `unix:PATH`, ADDR:PORT or https://HOST:PORT; default: that of --config")
	f.StringVar(&s.tokenFile, "token-file", "", "`FILE` with a token, where one is needed; default: that in STSPUB_TOKEN")
	cmd.PersistentPreRunE = func(*cobra.Command, []string) error { return s.readToken() }
}

// tenantFlag is for commands about what tenants have. Otherwise is what is meant without it, and without a token of a tenant.
func (s *server) tenantFlag(cmd *cobra.Command, otherwise string) {
	cmd.PersistentFlags().StringVar(&s.tenant, "tenant", "", "the `TENANT` that is meant; default: that of the token, or else "+otherwise)
	completeFlag(cmd, "tenant", s.tenants())
}

// readToken finds the token. It is no flag: other users of the machine see those.
func (s *server) readToken() error {
	if s.tokenFile == "" {
		s.token = os.Getenv("STSPUB_TOKEN")
		return nil
	}
	text, err := os.ReadFile(s.tokenFile)
	if err != nil {
		return fmt.Errorf("read --token-file: %w", err)
	}
	s.token = strings.TrimSpace(string(text))
	return nil
}

// client speaks to the server. A configuration that is broken still says where the listener is.
func (s *server) client() *httpd.Client {
	addr := s.admin
	if addr == "" {
		addr = os.Getenv("STSPUB_ADMIN")
	}
	if addr == "" {
		addr = config.AdminAddr(s.path)
	}
	return httpd.NewClient(addr).As(s.token, s.tenant)
}

// domainArg is the domain that a command was called with, as A-label.
func domainArg(args []string) (string, error) {
	if strings.HasPrefix(args[0], "*.") {
		return args[0], nil // a shared record
	}
	name, err := policygen.ParseName(args[0])
	if err != nil {
		return "", usageError{err}
	}
	return string(name), nil
}

func newDomain() *cobra.Command {
	s := &server{}
	cmd := group(&cobra.Command{
		Use: "domain", Short: "Look at the domains of the running server, and change them",
		Example: "  stspub domain list --faults\n  stspub domain show example.org\n  stspub domain add shop.example --mxset eu --publish alias",
	}, newDomainList(s), newDomainShow(s), newDomainAdopt(s), newDomainRetry(s), newDomainPromote(s), newDomainDemote(s),
		newDomainAdd(s), newDomainRemove(s), newDomainImport(s), newDomainExport(s), newDomainClaims(s), newDomainRelease(s))
	s.flags(cmd)
	s.tenantFlag(cmd, `"default"`)
	return cmd
}

func newDomainList(s *server) *cobra.Command {
	var faults bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List domains, a line each",
		Long: `list prints a line for every domain, and first one for every fault of the service as a whole. It ends with 0 also when
there are faults; "stspub check" is the command that judges.`,
		Example: "  stspub domain list\n  stspub domain list --faults --json",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			service, err := s.client().Faults(cmd.Context())
			if problem, ok := errors.AsType[*httpd.Problem](err); err != nil && !(ok && problem.Status == http.StatusForbidden) {
				return err // a tenant is not told of these
			}
			e := json.NewEncoder(cmd.OutOrStdout())
			for _, subject := range slices.Sorted(maps.Keys(service)) {
				if !asJSON(cmd) {
					fmt.Fprintf(cmd.OutOrStdout(), "FAULT %s: %s\n", subject, service[subject])
				} else if err := e.Encode(map[string]string{"fault": subject, "reason": service[subject]}); err != nil {
					return err
				}
			}
			if asJSON(cmd) {
				return s.client().Domains(cmd.Context(), faults, func(d publish.Status) error { return e.Encode(d) })
			}
			w := newTable(cmd.OutOrStdout())
			fmt.Fprintln(w, "DOMAIN\tMXSET\tPUBLISH\tSTEP\tSINCE\tWAITING FOR")
			err = s.client().Domains(cmd.Context(), faults, func(d publish.Status) error {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", d.Name, d.MXSet, d.Publish, step(d), since(d.Since), waits(d))
				return nil
			})
			if err != nil {
				return err
			}
			return w.Flush()
		},
	}
	cmd.Flags().BoolVar(&faults, "faults", false, "only those that need a human")
	jsonFlag(cmd, `: a line for each fault of the service, {"fault":…,"reason":…}, then one for each domain`)
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

// waits is what a domain waits for, or else the first thing that was found; and how much more was.
func waits(d publish.Status) string {
	reason, more := d.Reason, slices.DeleteFunc(slices.Clone(d.Findings), func(f store.Finding) bool { return f.Text == d.Reason })
	if reason == "" && len(more) > 0 {
		reason, more = "notice: "+more[0].Text, more[1:]
	}
	if len(more) > 0 {
		reason += fmt.Sprintf(" (and %d more: stspub domain show '%s')", len(more), d.Name)
	}
	return reason
}

func since(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return time.Since(t).Round(time.Second).String()
}

func newDomainShow(s *server) *cobra.Command {
	cmd := &cobra.Command{
		Use:               "show DOMAIN",
		Short:             "Show all that is known of one domain",
		Example:           "  stspub domain show example.org",
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: argument(s.completeDomain),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := domainArg(args)
			if err != nil {
				return err
			}
			d, err := s.client().Domain(cmd.Context(), name)
			if err != nil {
				return err
			}
			return output(cmd, d, func(out io.Writer) error { return writeStatus(out, d) })
		},
	}
	jsonFlag(cmd, "")
	return cmd
}

func writeStatus(out io.Writer, d publish.Status) error {
	w := newTable(out)
	line := func(key, value string) {
		if value != "" {
			fmt.Fprintf(w, "%s\t%s\n", key, strings.ReplaceAll(strings.TrimSpace(value), "\r\n", "\n\t"))
		}
	}
	name := string(d.Name)
	if d.Unicode != "" {
		name += " (" + d.Unicode + ")"
	}
	what := "domain"
	if d.Publish == store.PublishWildcard {
		what = "shared record"
	}
	line(what, name)
	line("step", step(d))
	line("waiting for", d.Reason)
	line("since", since(d.Since))
	for _, f := range d.Findings {
		kind := "notice "
		if f.Fault {
			kind = "fault "
		}
		line(kind+f.Code, f.Text+" (since "+f.Since.UTC().Format(time.DateTime+" MST")+")")
	}
	line("stage", d.Stage)
	line("looked at next", d.Due.UTC().Format(time.DateTime+" MST"))
	line("mx set", d.MXSet)
	line("publish", how(d))
	line("certificate", d.Certificate)
	if string(d.Name) != d.Record {
		line("record", d.Record)
	}
	line("id", d.ID)
	line("next id", d.Intended)
	line("policy", d.Policy)
	for _, mx := range d.Leaving {
		line("removed MX", mx.MX+" has to stay in service until "+mx.Until.UTC().Format(time.DateTime+" MST")+
			": senders may hold a policy that lists it")
	}
	if r := d.TLSRPT; r != nil {
		line("tlsrpt", reportState(*r))
	}
	if what == "domain" {
		line("owner sets", strings.Join(d.Records, "\r\n"))
	} else {
		line("stands there", strings.Join(d.Records, "\r\n"))
	}
	for _, h := range d.History {
		to := "now"
		if !h.To.IsZero() {
			to = h.To.UTC().Format(time.DateTime)
		}
		line("served "+h.From.UTC().Format(time.DateTime)+" to "+to, summary(h))
	}
	return w.Flush()
}

// how is the way a domain is published.
func how(d publish.Status) string {
	s := d.Publish
	if d.Account != "" {
		s += " (account " + d.Account + ")"
	}
	if !d.Detached.IsZero() {
		s += ", with a record of its own since " + d.Detached.UTC().Format(time.DateTime+" MST")
	}
	return s
}

// reportState is the TLSRPT record as it is wanted, and how it stands with it.
func reportState(r publish.TLSRPT) string {
	s := r.Text
	if s == "" {
		s = r.Record + " is to go"
	}
	if !r.Verified.IsZero() {
		s += "\r\nseen at every name server " + since(r.Verified) + " ago"
	}
	if r.Problem != "" {
		s += "\r\n" + r.Problem
	}
	return s
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
