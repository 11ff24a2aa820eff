package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/httpd"
	"github.com/stspub/stspub/internal/store"
)

func newEvents() *cobra.Command {
	s := &server{}
	var domain, since string
	var follow bool
	var q httpd.EventQuery
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Show what happened: who changed what, and what was found",
		Long: `events prints what happened, a line each, oldest first: when, to what (TENANT/NAME for the service), what, and who did it
unless that was stspub by itself. Changes are there with what was before and after, in --json; states are there when they
begin and when they end, not at each look. It is kept for as long as [store] keep_events says.

With --follow it goes on with what happens, from now on or from --since. When the server is restarted it connects again and
misses nothing. When the store was put back to a copy it says so, and goes on with what happens since.

Kinds are domain.fault and the like; "domain" stands for all that begin with "domain.".`,
		Example: `  stspub events --since 1d
  stspub events --domain example.org
  stspub events --follow --kind domain.fault,domain.fault-cleared,certificate.failing
  stspub events --since 2026-11-01 --kind token,account --json`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if domain != "" {
				name, err := domainArg([]string{domain})
				if err != nil {
					return err
				}
				q.Name = name
			}
			var err error
			if q.Since, err = sinceArg(since, time.Now()); err != nil {
				return err
			}
			p := &eventPrinter{out: cmd.OutOrStdout(), json: asJSON(cmd)}
			if !follow {
				return s.client().Events(cmd.Context(), q, p.print)
			}
			return s.follow(cmd, q, p)
		},
	}
	s.flags(cmd)
	s.tenantFlag(cmd, "all")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what happens")
	cmd.Flags().StringVar(&domain, "domain", "", "only those of this `DOMAIN`")
	cmd.Flags().StringVar(&q.Name, "name", "", "only those of the MX set, account, tenant, token or node of this `NAME`")
	cmd.Flags().StringSliceVar(&q.Kinds, "kind", nil, "only those of this `KIND`; may be repeated")
	cmd.Flags().StringVar(&since, "since", "", "only those from this `TIME` on: as long ago as 2h or 3d, or 2026-11-22, or 2026-11-22T08:00:00Z")
	jsonFlag(cmd, eachOnALine)
	cmd.MarkFlagsMutuallyExclusive("domain", "name")
	fixed(cmd, "kind", kindCompletions()...)
	completeFlag(cmd, "domain", s.completeDomain)
	return cmd
}

// follow prints until the command is ended, which is no fault.
func (s *server) follow(cmd *cobra.Command, q httpd.EventQuery, p *eventPrinter) error {
	said := cmd.ErrOrStderr()
	err := s.client().Follow(cmd.Context(), q, p.print,
		func(err error) { fmt.Fprintf(said, "stspub: lost the server (%v); trying again\n", err) },
		func(putBack bool) {
			if putBack {
				fmt.Fprintln(said, "stspub: connected again; the store was put back to a copy, which may not know all that happened")
				return
			}
			fmt.Fprintln(said, "stspub: connected again; nothing was missed")
		})
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// kindCompletions are all kinds, and their groups.
func kindCompletions() []string {
	all := store.Kinds()
	for _, k := range store.Kinds() {
		group, _, _ := strings.Cut(k, ".")
		all = append(all, group)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// sinceArg is a time, or how long ago.
func sinceArg(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if d, err := config.ParseDuration(text); err == nil {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339, time.DateTime, time.DateOnly} {
		if at, err := time.Parse(layout, text); err == nil {
			return at, nil
		}
	}
	return time.Time{}, usageError{fmt.Errorf("--since: %q is no time; write one like 2h, 3d, 2026-11-22 or 2026-11-22T08:00:00Z", text)}
}

// eventPrinter prints events as they come.
type eventPrinter struct {
	out  io.Writer
	json bool
}

func (p *eventPrinter) print(e store.Event) error {
	if p.json {
		return json.NewEncoder(p.out).Encode(e)
	}
	name := e.Name
	if e.Tenant != "" && e.Tenant != store.DefaultTenant {
		name = e.Tenant + "/" + name
	}
	who := ""
	if e.Actor != store.ActorSelf {
		who = " [" + e.Actor + "]"
	}
	line := fmt.Sprintf("%s  %-24s  %-20s  %s%s", e.At.UTC().Format("2006-01-02 15:04:05Z"), name, e.Kind, e.Text, who)
	_, err := fmt.Fprintln(p.out, printable(line))
	return err
}

// printable has nothing from outside write to the terminal but letters.
func printable(line string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '\uFFFD'
	}, line)
}
