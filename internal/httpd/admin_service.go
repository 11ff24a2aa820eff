package httpd

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/stspub/stspub/internal/certs"
	"github.com/stspub/stspub/internal/publish"
)

// serviceRoutes are those of the service as a whole.
func (a *admin) serviceRoutes() {
	register(a, ofService(operation("list-faults", http.MethodGet, "/v1/faults", "Faults of the service, by subject")), a.faults)
	register(a, ofService(operation("show-certificates", http.MethodGet, "/v1/certificates",
		"How it stands with all certificates, and with each CA")), a.certificates)
	names := ofService(operation("list-certificates", http.MethodGet, "/v1/certificates/names", "All names with their certificates"))
	register(a, listed[certs.Named](a, names), a.names)
	register(a, ofService(operation("reload", http.MethodPost, "/v1/reload", "Read the configuration again")), a.reload)

	plan := ofService(operation("plan", http.MethodPost, "/v1/plan", "What the configuration file, or one that is sent, would change"))
	plan.Responses = map[string]*huma.Response{"200": {
		Description: http.StatusText(http.StatusOK),
		Content:     map[string]*huma.MediaType{jsonType: {Schema: schema[publish.Plan](a)}, linesType: {Schema: schema[planLine](a)}},
	}}
	register(a, plan, a.plan)
	a.takes(http.MethodPost, "/v1/plan", jsonType, schema[PlanRequest](a))
}

func (a *admin) faults(context.Context, *struct{}) (*body[map[string]string], error) {
	return &body[map[string]string]{a.manager.Faults()}, nil
}

func (a *admin) certificates(context.Context, *struct{}) (*body[certs.Overview], error) {
	return &body[certs.Overview]{a.manager.Certificates()}, nil
}

type namesInput struct {
	Waiting bool `query:"waiting" doc:"only those with more to say than that the certificate is good"`
}

func (a *admin) names(_ context.Context, in *namesInput) (*huma.StreamResponse, error) {
	return a.list(func(_ context.Context, add func(any) error) error {
		return a.manager.EachCertificate(func(n certs.Named) error {
			if in.Waiting && !n.Waits() {
				return nil
			}
			return add(n)
		})
	}), nil
}

type reloadInput struct {
	Force string `query:"force" doc:"the hash of a plan: what it lists as refused or held is let through"`
}

func (a *admin) reload(ctx context.Context, in *reloadInput) (*body[publish.ReloadReport], error) {
	report, err := a.manager.Reload(ctx, in.Force)
	if err != nil {
		return nil, refusal(err)
	}
	return &body[publish.ReloadReport]{report}, nil
}
