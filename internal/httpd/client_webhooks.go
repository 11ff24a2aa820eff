package httpd

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"github.com/stspub/stspub/internal/webhook"
)

func (c *Client) webhookPath(name, act string, q url.Values) string {
	return c.scoped("/v1/webhooks/"+url.PathEscape(name)+act, q)
}

// Webhooks returns the webhooks of the client's tenant by name, or without one those of the service.
func (c *Client) Webhooks(ctx context.Context) ([]webhook.Info, error) {
	var all []webhook.Info
	if err := c.call(ctx, http.MethodGet, c.scoped("/v1/webhooks", nil), &all); err != nil {
		return nil, fmt.Errorf("list webhooks: %w", err)
	}
	return all, nil
}

// Webhook returns one.
func (c *Client) Webhook(ctx context.Context, name string) (webhook.Info, error) {
	var i webhook.Info
	if err := c.call(ctx, http.MethodGet, c.webhookPath(name, "", nil), &i); err != nil {
		return webhook.Info{}, fmt.Errorf("show webhook: %w", err)
	}
	return i, nil
}

// PutWebhook adds or changes a webhook; with rotate it gets another secret. A new secret is in the answer.
func (c *Client) PutWebhook(ctx context.Context, name string, spec webhook.Spec, rotate bool) (webhook.Info, error) {
	q := url.Values{}
	if rotate {
		q.Set("rotate", "true")
	}
	var i webhook.Info
	if err := c.put(ctx, http.MethodPut, c.webhookPath(name, "", q), spec, &i); err != nil {
		return webhook.Info{}, fmt.Errorf("put webhook: %w", err)
	}
	return i, nil
}

// RemoveWebhook removes a webhook, with what it has not delivered.
func (c *Client) RemoveWebhook(ctx context.Context, name string) error {
	if err := c.call(ctx, http.MethodDelete, c.webhookPath(name, "", nil), nil); err != nil {
		return fmt.Errorf("remove webhook: %w", err)
	}
	return nil
}

// TestWebhook sends a test to a webhook, and says what came of it.
func (c *Client) TestWebhook(ctx context.Context, name string) (webhook.Tested, error) {
	var t webhook.Tested
	if err := c.call(ctx, http.MethodPost, c.webhookPath(name, "/test", nil), &t); err != nil {
		return webhook.Tested{}, fmt.Errorf("test webhook: %w", err)
	}
	return t, nil
}

// ResumeWebhook has a webhook that paused or fails go on now.
func (c *Client) ResumeWebhook(ctx context.Context, name string) (webhook.Info, error) {
	var i webhook.Info
	if err := c.call(ctx, http.MethodPost, c.webhookPath(name, "/resume", nil), &i); err != nil {
		return webhook.Info{}, fmt.Errorf("resume webhook: %w", err)
	}
	return i, nil
}
