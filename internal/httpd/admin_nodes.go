package httpd

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/go-chi/chi/v5"

	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

// nodeRoutes are those of the nodes on one store.
//
//	GET    /v1/nodes      all that are not gone
//	DELETE /v1/nodes/ID   declares one gone: 204
func (a *admin) nodeRoutes(r chi.Router) {
	r.Get("/v1/nodes", a.handle(a.nodes))
	r.Delete("/v1/nodes/{id}", a.handle(a.removeNode))
}

func (a *admin) nodes(w http.ResponseWriter, r *http.Request) error {
	all, err := a.manager.Nodes(r.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, all)
}

func (a *admin) removeNode(w http.ResponseWriter, r *http.Request) error {
	id := chi.URLParam(r, "id")
	if r.URL.RawPath != "" { // then chi has matched the escaped path
		var err error
		if id, err = url.PathUnescape(id); err != nil {
			return &Problem{Status: http.StatusBadRequest, Detail: err.Error()}
		}
	}
	switch err := a.manager.RemoveNode(r.Context(), id); {
	case errors.Is(err, store.ErrNotFound):
		return &Problem{Status: http.StatusNotFound, Detail: fmt.Sprintf("there is no node %q", id)}
	case err != nil:
		return refusal(err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
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
