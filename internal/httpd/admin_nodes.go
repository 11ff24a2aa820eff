package httpd

import (
	"context"
	"net/http"

	"github.com/stspub/stspub/internal/publish"
)

// nodeRoutes are those of the nodes on one store.
func (a *admin) nodeRoutes() {
	register(a, ofService(operation("list-nodes", http.MethodGet, "/v1/nodes", "The nodes on the store that are not gone")), a.nodes)
	register(a, ofService(operation("remove-node", http.MethodDelete, "/v1/nodes/{id}", "Declare a node gone")), a.removeNode)
}

func (a *admin) nodes(ctx context.Context, _ *struct{}) (*body[[]publish.NodeStatus], error) {
	all, err := a.manager.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	return &body[[]publish.NodeStatus]{all}, nil
}

type nodeInput struct {
	ID string `path:"id"`
}

func (a *admin) removeNode(ctx context.Context, in *nodeInput) (*struct{}, error) {
	return nil, refusal(missing(a.manager.RemoveNode(ctx, in.ID), "there is no node %q", in.ID))
}
