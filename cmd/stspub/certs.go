package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stspub/stspub/internal/certs"
)

func newCerts() *cobra.Command {
	s := &server{}
	var waiting bool
	cmd := &cobra.Command{
		Use:   "certs",
		Short: "Show how it stands with the certificates, and with each CA",
		Long: `certs prints how many names have their certificate, what each CA still allows, and a line for every name: its state, the end
of its certificate, its place in the queue and when its turn is expected, and why it has none. The times hold if
nothing more urgent comes.`,
		Example: "  stspub certs\n  stspub certs --waiting --json",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			o, err := s.client().Certificates(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON(cmd) {
				e := json.NewEncoder(cmd.OutOrStdout())
				if err := e.Encode(o); err != nil {
					return err
				}
				return s.client().CertificateNames(cmd.Context(), waiting, func(n certs.Named) error { return e.Encode(n) })
			}
			if err := writeOverview(cmd.OutOrStdout(), o); err != nil {
				return err
			}
			w := newTable(cmd.OutOrStdout())
			fmt.Fprintln(w, "NAME\tSTATE\tUNTIL\tCA\tPLACE\tEXPECTED\tWAITING FOR")
			err = s.client().CertificateNames(cmd.Context(), waiting, func(n certs.Named) error {
				_, err := fmt.Fprintln(w, strings.Join(certLine(n), "\t"))
				return err
			})
			if err != nil {
				return err
			}
			return w.Flush()
		},
	}
	cmd.Flags().BoolVar(&waiting, "waiting", false, "only names with more to say than that their certificate is good")
	jsonFlag(cmd, ": a line for the whole, then one for each name")
	s.flags(cmd)
	return cmd
}

func writeOverview(out io.Writer, o certs.Overview) error {
	w := newTable(out)
	fmt.Fprintln(w, o)
	for _, a := range o.Accounts {
		fmt.Fprintf(w, "%s\t%s\n", a.Name, a)
	}
	fmt.Fprintln(w)
	return w.Flush()
}

// certLine are the columns of one name.
func certLine(n certs.Named) []string {
	state := string(n.State)
	if n.Staging {
		state += " (staging)"
	}
	if n.Late {
		state += " !"
	}
	place := "-"
	if n.Place > 0 {
		place = fmt.Sprint(n.Place)
	}
	expected := n.Expected
	if expected.IsZero() && n.State != certs.StateValid {
		expected = n.NextTry
	}
	var why []string
	for _, s := range []string{n.Problem, n.Advice, n.Waiting} {
		if s != "" {
			why = append(why, s)
		}
	}
	authority := n.Authority
	if authority == "" {
		authority = "-"
	}
	return []string{n.Name, state, date(n.NotAfter), authority, place, date(expected), strings.Join(why, "; ")}
}
