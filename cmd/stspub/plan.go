package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/publish"
)

func newPlan() *cobra.Command {
	s := &server{}
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Say what a configuration would change, before anything is changed",
		Long: `plan has the running server compare a configuration with what is in force, and prints what a reload with it would do:
which MX sets and domains change, who comes to mode enforce, how many DNS writes each account makes and how long they
take, which customers have to write a TXT record by hand, until when a removed MX has to stay in service, from when an
added one may be put into DNS, and which domains would be stranded: senders would refuse their mail, because their MX in
DNS are not covered by the new policy. It also lists what is held now.

With --config it is that file, which need not be the server's, nor be readable by it; without, the file that the server
runs with. What a reload would refuse is let through by its --force with the hash that plan prints, as long as nothing
that it stands for has changed.

The exit code is 0 if a reload would take the configuration, 1 if it would be refused, and 2 if the command was called
wrongly.`,
		Example: `  stspub plan
  stspub plan --config new.toml
  stspub plan --config new.toml --json`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var path string
			var files map[string][]byte
			if cmd.Flags().Changed("config") {
				var err error
				if path, files, err = planFiles(s.path); err != nil {
					return err
				}
			}
			p, err := s.client().Plan(cmd.Context(), path, files, func(done, total int) {
				fmt.Fprintf(cmd.ErrOrStderr(), "looked up the MX of %d of %d domains\n", done, total)
			})
			if err != nil {
				return err
			}
			err = output(cmd, p, func(out io.Writer) error { return writePlan(out, cmd.ErrOrStderr(), p) })
			if err == nil && len(p.Refused) > 0 {
				err = errFault
			}
			return err
		},
	}
	s.adminFlags(cmd)
	configFlag(cmd, &s.path)
	jsonFlag(cmd, "")
	return cmd
}

// planFiles reads a configuration and its lists of domains. Secrets stay here: whether the server can read them is for
// the server to say.
func planFiles(path string) (string, map[string][]byte, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", nil, fmt.Errorf("find configuration: %w", err)
	}
	conf, _, err := config.LoadFiles(path, os.Getenv, os.ReadFile)
	if err != nil {
		return "", nil, err
	}
	return path, conf.Files, nil
}

func writePlan(out, errs io.Writer, p publish.Plan) error {
	for _, w := range p.Warnings {
		fmt.Fprintln(errs, "warning:", w)
	}
	if len(p.Lines()) == 0 {
		fmt.Fprintln(out, "nothing changes")
	}
	if err := p.WriteText(out); err != nil {
		return err
	}
	for _, why := range p.Refused {
		fmt.Fprintf(out, "REFUSED: %s\n", why)
	}
	switch {
	case p.Hash == "": // no force helps
	case len(p.Refused) > 0:
		fmt.Fprintf(out, "if it is meant, run: stspub reload --force %s\n", p.Hash)
	default:
		fmt.Fprintln(out, "to do it, run: stspub reload")
		if len(p.Held) > 0 {
			fmt.Fprintf(out, "to let through what is held as well, run: stspub reload --force %s\n", p.Hash)
		}
	}
	return nil
}
