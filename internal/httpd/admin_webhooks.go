package httpd

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/stspub/stspub/internal/store"
	"github.com/stspub/stspub/internal/webhook"
)

// Webhooks is what the admin API needs of a [webhook.Webhooks]; what its methods do and return is said there.
type Webhooks interface {
	All(ctx context.Context, tenant string) ([]webhook.Info, error)
	One(ctx context.Context, tenant, name string) (webhook.Info, error)
	Put(ctx context.Context, tenant, name string, spec webhook.Spec, ifMatch string, rotate bool) (i webhook.Info, added bool, err error)
	Delete(ctx context.Context, tenant, name, ifMatch string) error
	Resume(ctx context.Context, tenant, name string) (webhook.Info, error)
	Test(ctx context.Context, tenant, name string) (webhook.Tested, error)
}

// webhookRoutes are those of webhooks.
func (a *admin) webhookRoutes() {
	register(a, operation("list-webhooks", http.MethodGet, "/v1/webhooks", "List webhooks, by name and without their secrets"), a.allWebhooks)
	register(a, operation("show-webhook", http.MethodGet, "/v1/webhooks/{name}", "Show one webhook, without its secret"), a.webhook)
	put := operation("put-webhook", http.MethodPut, "/v1/webhooks/{name}", "Add a webhook, or change where it leads and what is sent")
	put.Description = "201: it is added, and its secret is shown this once; 200: it is changed, or as it is wanted already."
	register(a, put, a.putWebhook)
	register(a, operation("remove-webhook", http.MethodDelete, "/v1/webhooks/{name}", "Remove a webhook, with what it has not delivered"), a.removeWebhook)
	test := operation("test-webhook", http.MethodPost, "/v1/webhooks/{name}/test", "Send a test to a webhook now, and say what came of it")
	test.Description = "200 says that it was sent, and \"taken\" whether the receiver took it."
	register(a, test, a.testWebhook)
	register(a, operation("resume-webhook", http.MethodPost, "/v1/webhooks/{name}/resume", "Have a webhook that paused or fails go on now"), a.resumeWebhook)
}

// OwnScope is part of what routes take about what the service has, too.
type OwnScope struct {
	Tenant string `query:"tenant" doc:"which tenant; without one, the service as a whole, or that of the token"`
}

func (in OwnScope) of(ctx context.Context, a *admin) (string, error) {
	return tokensInput(in).of(ctx, a)
}

// wrongWebhook makes a problem of why something was not done with a webhook.
func wrongWebhook(name string, err error) error {
	what := fmt.Sprintf("webhook %q", name)
	if invalid, ok := errors.AsType[*webhook.InvalidError](err); ok {
		return &Problem{Status: http.StatusBadRequest, Detail: what + ": " + invalid.Error()}
	}
	if errors.Is(err, store.ErrTooMany) {
		return &Problem{Status: http.StatusConflict, Detail: fmt.Sprintf("%s: there are %d webhooks, and no more may be; remove one first", what, store.MaxWebhooks)}
	}
	return wrong(what, err)
}

type ownScopeInput struct{ OwnScope }

type ownNamedInput struct {
	OwnScope
	Name string `path:"name"`
}

func (a *admin) allWebhooks(ctx context.Context, in *ownScopeInput) (*body[[]webhook.Info], error) {
	tenant, err := in.of(ctx, a)
	if err != nil {
		return nil, err
	}
	all, err := a.webhooks.All(ctx, tenant)
	if err != nil {
		return nil, err
	}
	return &body[[]webhook.Info]{all}, nil
}

func (a *admin) webhook(ctx context.Context, in *ownNamedInput) (*tagged[webhook.Info], error) {
	tenant, err := in.of(ctx, a)
	if err != nil {
		return nil, err
	}
	i, err := a.webhooks.One(ctx, tenant, in.Name)
	if err != nil {
		return nil, wrongWebhook(in.Name, err)
	}
	return &tagged[webhook.Info]{quoted(i.ETag), i}, nil
}

type putWebhookInput struct {
	OwnScope
	Name    string `path:"name"`
	Rotate  bool   `query:"rotate" doc:"make another secret, and show it this once; the one before signs too for a day"`
	IfMatch string `header:"If-Match" doc:"the ETag that it must have, or *: it must be there; else the answer is 412"`
	Body    webhook.Spec
}

func (a *admin) putWebhook(ctx context.Context, in *putWebhookInput) (*changed[webhook.Info], error) {
	tenant, err := in.of(ctx, a)
	if err != nil {
		return nil, err
	}
	match, err := tag(in.IfMatch)
	if err != nil {
		return nil, err
	}
	i, added, err := a.webhooks.Put(ctx, tenant, in.Name, in.Body, match, in.Rotate)
	if err != nil {
		return nil, wrongWebhook(in.Name, err)
	}
	status := http.StatusOK
	if added {
		status = http.StatusCreated
	}
	return &changed[webhook.Info]{status, quoted(i.ETag), i}, nil
}

type removeWebhookInput struct {
	OwnScope
	Name    string `path:"name"`
	IfMatch string `header:"If-Match" doc:"the ETag that it must have, or *: it must be there; else the answer is 412"`
}

func (a *admin) removeWebhook(ctx context.Context, in *removeWebhookInput) (*struct{}, error) {
	tenant, err := in.of(ctx, a)
	if err != nil {
		return nil, err
	}
	match, err := tag(in.IfMatch)
	if err != nil {
		return nil, err
	}
	return nil, wrongWebhook(in.Name, a.webhooks.Delete(ctx, tenant, in.Name, match))
}

func (a *admin) testWebhook(ctx context.Context, in *ownNamedInput) (*body[webhook.Tested], error) {
	tenant, err := in.of(ctx, a)
	if err != nil {
		return nil, err
	}
	leave, err := a.shares.tests.enter(callerOf(ctx).tenant) // it waits for whom the tenant chose
	if err != nil {
		return nil, err
	}
	defer leave()
	t, err := a.webhooks.Test(ctx, tenant, in.Name)
	if err != nil {
		return nil, wrongWebhook(in.Name, err)
	}
	return &body[webhook.Tested]{t}, nil
}

func (a *admin) resumeWebhook(ctx context.Context, in *ownNamedInput) (*body[webhook.Info], error) {
	tenant, err := in.of(ctx, a)
	if err != nil {
		return nil, err
	}
	i, err := a.webhooks.Resume(ctx, tenant, in.Name)
	if err != nil {
		return nil, wrongWebhook(in.Name, err)
	}
	return &body[webhook.Info]{i}, nil
}
