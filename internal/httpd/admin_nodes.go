package httpd

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
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
	switch err := a.manager.RemoveNode(ctx, in.ID); {
	case errors.Is(err, store.ErrNotFound):
		return nil, &Problem{Status: http.StatusNotFound, Detail: fmt.Sprintf("there is no node %q", in.ID)}
	case err != nil:
		return nil, refusal(err)
	}
	return nil, nil
}

// Nodes returns the nodes on the server's store that are not gone.
func (c *Client) Nodes(ctx context.Context) ([]publish.NodeStatus, error) {
	var all []publish.NodeStatus
	if err := c.call(ctx, http.MethodGet, "/v1/nodes", &all); err != nil {
		return nil, fmt.Errorf("list nodes: %w", err)
	}
	return all, nil
}

// RemoveNode declares a node gone.
func (c *Client) RemoveNode(ctx context.Context, id string) error {
	if err := c.call(ctx, http.MethodDelete, "/v1/nodes/"+url.PathEscape(id), nil); err != nil {
		return fmt.Errorf("remove node: %w", err)
	}
	return nil
}
