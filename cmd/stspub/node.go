package main

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

func newNode() *cobra.Command {
	s := &server{}
	cmd := group(&cobra.Command{
		Use:   "node",
		Short: "Show the nodes that share one store, and remove one that is gone for good",
		Example: `  stspub node list
  stspub node remove node2`,
	}, newNodeList(s), newNodeRemove(s))
	s.flags(cmd)
	return cmd
}

func newNodeList(s *server) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the nodes that are not gone",
		Example: "  stspub node list",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := s.client().Nodes(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(all)
			}
			w := newTable(cmd.OutOrStdout())
			fmt.Fprintln(w, "NODE\tADDRESS\tSTARTED\tHEARD OF")
			for _, n := range all {
				heard := (time.Duration(n.Silent) * time.Second).String() + " ago"
				if n.Lost {
					heard += ": publications wait for it"
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", n.ID, n.Address, n.Started.UTC().Format(time.DateTime), heard)
			}
			return w.Flush()
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func newNodeRemove(s *server) *cobra.Command {
	return &cobra.Command{
		Use:   "remove NODE",
		Short: "Declare a node gone that does not answer any more",
		Long: `remove is for a node that is gone for good, or that no sender reaches any more: publications do not wait for it then, and
records that were changed without it get one more id. A node that was stopped is gone by itself, and one that lives is
not removed. It may come back.`,
		Example: "  stspub node remove node2",
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := s.client().RemoveNode(cmd.Context(), args[0]); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "nobody waits for node %s any more\n", args[0])
			return nil
		},
	}
}
