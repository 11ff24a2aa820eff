package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

// MaxWebhooks is how many a tenant may have, and the service.
const MaxWebhooks = 20

// ErrTooMany says that there are as many already as there may be.
var ErrTooMany = errors.New("there are as many as there may be")

// Kinds of events about webhooks: changes that somebody made.
const (
	KindWebhookAdded   = "webhook.added"
	KindWebhookChanged = "webhook.changed" // also one that got another secret, or was resumed
	KindWebhookRemoved = "webhook.removed"
)

// Webhook is where the events of a tenant are sent to.
type Webhook struct {
	Tenant   string    // "": the service, which hears of the events of all tenants too
	Name     string    // an LDH label
	URL      string    // sealed in the store as the secrets are, as it may be one
	Kinds    []string  // of the events that are sent; empty: the choice of who sends
	Secret   []byte    // signs
	Old      []byte    // the secret before, which signs too until OldUntil
	OldUntil time.Time // zero: there is none
	Created  time.Time

	// Damaged says that URL and secrets do not open, and are missing here. Only read.
	Damaged bool
	// Forgotten is how many events PruneEvents forgot before it took them. Only read.
	Forgotten int64
	// Version changes with what is above and when it resumes. Only read.
	Version int64

	Delivery Delivery
}

// Delivery is how far a webhook is. Only package webhook writes it.
type Delivery struct {
	// Reached is the Seq of an event: it and all before it are delivered, lost, or behind one that is held.
	Reached int64
	Held    []HeldEvent
	// Since is when the first of Held was tried first; zero: nothing fails.
	Since     time.Time
	Problem   string // why the last one failed; empty: nothing fails
	Failures  int    // in a row, of calls that the receiver was not fit to answer
	Lost      int64  // events that were given up
	Delivered time.Time
	Paused    bool // nothing is sent until it resumes
	// Due is when one of Held is to be tried; zero: none is. Rest is before when no event after Reached is sent.
	Due, Rest time.Time
}

// HeldEvent is an event that was not taken. Those of its name wait for it.
type HeldEvent struct {
	Tenant string    `json:"tenant,omitempty"` // of the event
	Name   string    `json:"name,omitempty"`   // of the event
	Seq    int64     `json:"seq"`
	Since  time.Time `json:"since"` // first tried
	Tries  int       `json:"tries"`
	Due    time.Time `json:"due"` // tried next
}

// Webhooks is the part of a [Store] about where events are sent to.
type Webhooks interface {
	// Webhooks returns those of a tenant by name, or with "" those of the service.
	Webhooks(ctx context.Context, tenant string) ([]Webhook, error)
	// Webhook returns one, or ErrNotFound.
	Webhook(ctx context.Context, tenant, name string) (Webhook, error)
	// AddWebhook adds a webhook, which begins with the events to come. One that is there is ErrExists, one more than
	// [MaxWebhooks] ErrTooMany, a tenant that is not there ErrNotFound. Delivery is not read.
	AddWebhook(ctx context.Context, w Webhook, now time.Time) error
	// ChangeWebhook changes URL, Kinds and secrets of one that has an ETag, else the error is ErrMismatch. With another URL
	// it resumes. One that is not there is ErrNotFound.
	ChangeWebhook(ctx context.Context, w Webhook, ifMatch string, now time.Time) error
	// DeleteWebhook forgets one, with what it has not delivered, or returns ErrNotFound. IfMatch, if not empty, is the ETag
	// that it must have, or "*"; else the error is ErrMismatch.
	DeleteWebhook(ctx context.Context, tenant, name, ifMatch string, now time.Time) error
	// ResumeWebhook has one that paused or failed go on now where it stopped, or returns ErrNotFound.
	ResumeWebhook(ctx context.Context, tenant, name string, now time.Time) error
	// ClaimWebhooks returns at most n webhooks that have something to do: those with Due, and those whose Rest is over and for
	// whose tenant there is an event after Reached. Until lease is over, or SaveWebhook gives them back, nobody else gets
	// them; who is gone has given his back (see Beat). It returns the time by which they are due, too.
	ClaimWebhooks(ctx context.Context, lease time.Duration, n int) ([]Webhook, time.Time, error)
	// SaveWebhook writes the Delivery of a webhook that this process has claimed, and prolongs the claim, or with 0 ends it.
	// One that is not its own any more is ErrStale. One that was put meanwhile or resumed is so too; then what was delivered
	// is kept, the claim is over, and nothing is to be waited for.
	SaveWebhook(ctx context.Context, w Webhook, lease time.Duration) error
	// FailingWebhooks returns those of all tenants whose Since is set or that paused, without URL and secrets.
	FailingWebhooks(ctx context.Context) ([]Webhook, error)
}

// ETag stands for what is wanted of a webhook.
func (w Webhook) ETag() string {
	h := sha256.New()
	for _, part := range []string{w.Tenant, w.Name, w.URL, strings.Join(w.Kinds, " "), string(w.Secret), fmt.Sprint(micros(w.Created))} {
		fmt.Fprintf(h, "%d %s\n", len(part), part) // a hash takes everything
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// shownWebhook is what events show of a webhook. The rest of the URL may be a secret.
type shownWebhook struct {
	Host  string   `json:"host"`
	Kinds []string `json:"kinds,omitempty"`
}

func (w Webhook) shown() shownWebhook {
	u, err := url.Parse(w.URL)
	if err != nil {
		u = &url.URL{}
	}
	return shownWebhook{u.Host, w.Kinds}
}

// webhookSettings are what is sealed of a webhook.
type webhookSettings struct {
	URL    string `json:"url"`
	Secret []byte `json:"secret"`
	Old    []byte `json:"old,omitempty"`
	Until  int64  `json:"until,omitempty"` // microseconds
}

const webhookColumns = `tenant, name, kinds, settings, sealed, created, version, reached, held, since, problem, failures, lost,
	delivered, paused, due, rest, forgotten`

func (t *tables) scanWebhook(r row) (w Webhook, err error) {
	var kinds, seal, held string
	var settings []byte
	d := &w.Delivery
	if err := r.Scan(&w.Tenant, &w.Name, &kinds, &settings, &seal, stamp{&w.Created}, &w.Version, &d.Reached, &held, stamp{&d.Since},
		&d.Problem, &d.Failures, &d.Lost, stamp{&d.Delivered}, &d.Paused, stamp{&d.Due}, stamp{&d.Rest}, &w.Forgotten); err != nil {
		return w, err
	}
	if kinds != "" {
		w.Kinds = strings.Split(kinds, " ")
	}
	if held != "" {
		if err := json.Unmarshal([]byte(held), &d.Held); err != nil {
			return w, fmt.Errorf("held events of webhook %q: %w", w.Name, err)
		}
	}
	var s webhookSettings
	plain, err := t.ring.Open(seal, labelWebhook+w.Tenant+"/"+w.Name, settings)
	if err == nil {
		err = json.Unmarshal(plain, &s)
	}
	if err != nil { // one that is damaged must not keep the others from theirs
		w.Damaged = true
		return w, nil
	}
	w.URL, w.Secret, w.Old, w.OldUntil = s.URL, s.Secret, s.Old, fromMicros(s.Until)
	return w, nil
}

const queryWebhook = `SELECT ` + webhookColumns + ` FROM webhooks WHERE tenant = $1 AND name = $2`

// Webhooks implements [Store].
func (t *tables) Webhooks(ctx context.Context, tenant string) ([]Webhook, error) {
	return collect(ctx, t, "read webhooks", t.scanWebhook,
		`SELECT `+webhookColumns+` FROM webhooks WHERE tenant = $1 ORDER BY name`, tenant)
}

// Webhook implements [Store].
func (t *tables) Webhook(ctx context.Context, tenant, name string) (Webhook, error) {
	return one(ctx, t, fmt.Sprintf("read webhook %q", name), t.scanWebhook, queryWebhook, tenant, name)
}

// FailingWebhooks implements [Store].
func (t *tables) FailingWebhooks(ctx context.Context) ([]Webhook, error) {
	scan := func(r row) (w Webhook, err error) {
		err = r.Scan(&w.Tenant, &w.Name, stamp{&w.Delivery.Since}, &w.Delivery.Problem, &w.Delivery.Paused)
		return w, err
	}
	return collect(ctx, t, "read webhooks", scan,
		`SELECT tenant, name, since, problem, paused FROM webhooks WHERE since > 0 OR paused ORDER BY tenant, name`)
}

// findWebhook locks a webhook. One that is not there is ErrNotFound, another than ifMatch says ErrMismatch.
func (t *tables) findWebhook(ctx context.Context, tx transaction, tenant, name, ifMatch string) (w Webhook, err error) {
	found := false
	err = tx.query(ctx, func(r row) error {
		found = true
		w, err = t.scanWebhook(r)
		return err
	}, tx.locking(queryWebhook, "FOR UPDATE"), tenant, name)
	switch {
	case err != nil:
	case !matches(ifMatch, found, w.ETag()):
		err = ErrMismatch
	case !found:
		err = ErrNotFound
	}
	return w, err
}

// sealWebhook returns what is sealed of a webhook.
func (t *tables) sealWebhook(ctx context.Context, tx transaction, w Webhook) (seal string, settings []byte, err error) {
	settings, err = json.Marshal(webhookSettings{w.URL, w.Secret, w.Old, micros(w.OldUntil)})
	if err != nil {
		return "", nil, err
	}
	return t.seal(ctx, tx, labelWebhook+w.Tenant+"/"+w.Name, settings)
}

// AddWebhook implements [Store].
func (t *tables) AddWebhook(ctx context.Context, w Webhook, now time.Time) error {
	told := diary{actor: actorOf(ctx), at: now}
	told.note(w.Tenant, KindWebhookAdded, w.Name, "added", nil, w.shown())
	return t.db.write(ctx, fmt.Sprintf("add webhook %q", w.Name), func(ctx context.Context, tx transaction) error {
		seal, settings, err := t.sealWebhook(ctx, tx, w)
		if err != nil {
			return err
		}
		if err := tx.lock(ctx, lockWebhooks, w.Tenant, false); err != nil {
			return err
		}
		if err := roomForWebhook(ctx, tx, w); err != nil {
			return err
		}
		change, err := tx.nextChange(ctx)
		if err != nil {
			return err
		}
		if _, err = tx.exec(ctx, `INSERT INTO webhooks (tenant, name, kinds, settings, sealed, created, version, reached)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
			w.Tenant, w.Name, strings.Join(w.Kinds, " "), settings, seal, micros(w.Created), change, change); err != nil {
			return err
		}
		return told.record(ctx, tx)
	})
}

// ChangeWebhook implements [Store].
func (t *tables) ChangeWebhook(ctx context.Context, w Webhook, ifMatch string, now time.Time) error {
	actor := actorOf(ctx)
	return t.db.write(ctx, fmt.Sprintf("change webhook %q", w.Name), func(ctx context.Context, tx transaction) error {
		seal, settings, err := t.sealWebhook(ctx, tx, w)
		if err != nil {
			return err
		}
		old, err := t.findWebhook(ctx, tx, w.Tenant, w.Name, ifMatch)
		if err != nil {
			return err
		}
		same, text := bytes.Equal(old.Secret, w.Secret), "changed"
		switch {
		case same && old.URL == w.URL && slices.Equal(old.Kinds, w.Kinds):
			return nil
		case !same:
			text = "changed, with another secret"
		}
		change, err := tx.nextChange(ctx)
		if err != nil {
			return err
		}
		if _, err = tx.exec(ctx, `UPDATE webhooks SET kinds = $1, settings = $2, sealed = $3, version = $4 WHERE tenant = $5 AND name = $6`,
			strings.Join(w.Kinds, " "), settings, seal, change, w.Tenant, w.Name); err != nil {
			return err
		}
		if old.URL != w.URL {
			if err := resumeWebhook(ctx, tx, old); err != nil {
				return err
			}
		}
		told := diary{actor: actor, at: now}
		told.note(w.Tenant, KindWebhookChanged, w.Name, text, old.shown(), w.shown())
		return told.record(ctx, tx)
	})
}

// roomForWebhook says why a webhook cannot be added.
func roomForWebhook(ctx context.Context, tx transaction, w Webhook) error {
	var tenant, same bool
	var n int
	if err := tx.get(ctx, `SELECT $1 = '' OR EXISTS (SELECT 1 FROM tenants WHERE name = $1),
		EXISTS (SELECT 1 FROM webhooks WHERE tenant = $1 AND name = $2), (SELECT count(*) FROM webhooks WHERE tenant = $1)`,
		[]any{w.Tenant, w.Name}, &tenant, &same, &n); err != nil {
		return err
	}
	switch {
	case !tenant:
		return fmt.Errorf("tenant %q: %w", w.Tenant, ErrNotFound)
	case same:
		return ErrExists
	case n >= MaxWebhooks:
		return fmt.Errorf("%w: %d", ErrTooMany, MaxWebhooks)
	}
	return nil
}

// DeleteWebhook implements [Store].
func (t *tables) DeleteWebhook(ctx context.Context, tenant, name, ifMatch string, now time.Time) error {
	actor := actorOf(ctx)
	return t.db.write(ctx, fmt.Sprintf("delete webhook %q", name), func(ctx context.Context, tx transaction) error {
		w, err := t.findWebhook(ctx, tx, tenant, name, ifMatch)
		if err != nil {
			return err
		}
		if _, err := tx.exec(ctx, `DELETE FROM webhooks WHERE tenant = $1 AND name = $2`, tenant, name); err != nil {
			return err
		}
		told := diary{actor: actor, at: now}
		told.note(tenant, KindWebhookRemoved, name, "removed", w.shown(), nil)
		return told.record(ctx, tx)
	})
}

// ResumeWebhook implements [Store].
func (t *tables) ResumeWebhook(ctx context.Context, tenant, name string, now time.Time) error {
	actor := actorOf(ctx)
	return t.db.write(ctx, fmt.Sprintf("resume webhook %q", name), func(ctx context.Context, tx transaction) error {
		w, err := t.findWebhook(ctx, tx, tenant, name, "")
		if err != nil {
			return err
		}
		change, err := tx.nextChange(ctx) // wakes who delivers
		if err != nil {
			return err
		}
		if _, err = tx.exec(ctx, `UPDATE webhooks SET version = $1 WHERE tenant = $2 AND name = $3`, change, tenant, name); err != nil {
			return err
		}
		if err := resumeWebhook(ctx, tx, w); err != nil {
			return err
		}
		told := diary{actor: actor, at: now}
		told.note(tenant, KindWebhookChanged, name, "resumed", nil, nil)
		return told.record(ctx, tx)
	})
}
