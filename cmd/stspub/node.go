package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/stspub/stspub/internal/publish"
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
	return lister(cobra.Command{
		Use:     "list",
		Short:   "List the nodes that are not gone, a line each",
		Example: "  stspub node list\n  stspub node list --json",
	}, []string{"NODE", "ADDRESS", "STARTED", "HEARD OF"},
		func(ctx context.Context) ([]publish.NodeStatus, error) { return s.client().Nodes(ctx) },
		func(n publish.NodeStatus) []string {
			heard := (time.Duration(n.Silent) * time.Second).String() + " ago"
			if n.Lost {
				heard += ": publications wait for it"
			}
			return []string{n.ID, n.Address, n.Started.UTC().Format(time.DateTime), heard}
		})
}

func newNodeRemove(s *server) *cobra.Command {
	return doer(cobra.Command{
		Use:   "remove NODE",
		Short: "Declare a node gone that does not answer any more",
		Long: `remove is for a node that is gone for good, or that no sender reaches any more: publications do not wait for it then, and
records that were changed without it get one more id. A node that was stopped is gone by itself, and one that lives is
not removed. It may come back.`,
		Example: "  stspub node remove node2",
	}, s.nodes(), removed, "nobody waits for node %s any more", func(ctx context.Context, id string) error { return s.client().RemoveNode(ctx, id) })
}
