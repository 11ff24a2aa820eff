package webhook

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/stspub/stspub/internal/store"
)

const (
	secretPrefix = "whsec_" // of the specification
	secretSize   = 32
	rotateTime   = 24 * time.Hour // both secrets sign
	maxURL       = 2000
	putTries     = 3
)

// KindTest is the type of the call that a test makes. It is no event.
const KindTest = "webhook.test"

// DefaultKinds are sent to a webhook that does not choose.
func DefaultKinds() []string {
	return []string{
		store.KindDomainStep, store.KindDomainFault, store.KindDomainMended, store.KindDomainHeld, store.KindDomainGone, store.KindFailing,
		store.KindServiceFault, store.KindServiceMended,
	}
}

func kindsOf(w store.Webhook) []string {
	if len(w.Kinds) == 0 {
		return DefaultKinds()
	}
	return w.Kinds
}

// Spec is what is wanted of a webhook.
type Spec struct {
	URL   string   `json:"url" maxLength:"2000" doc:"where events are sent to, by POST: https, and a host on the public Internet"`
	Kinds []string `json:"kinds,omitempty" doc:"of the events that are sent; without any, those in docs/api.md"`
}

// States of a webhook in [Info].
const (
	StateGood    = "good"
	StateFailing = "failing" // something was not taken, and is tried again
	StatePaused  = "paused"
)

// Info is a webhook as the admin API shows it.
type Info struct {
	Name      string    `json:"name"`
	Tenant    string    `json:"tenant,omitempty" doc:"without one, it is of the service as a whole"`
	URL       string    `json:"url"`
	Kinds     []string  `json:"kinds"`
	Created   time.Time `json:"created"`
	State     string    `json:"state" enum:"good,failing,paused"`
	Problem   string    `json:"problem,omitempty" doc:"why the last event was not taken"`
	Since     time.Time `json:"since,omitzero" doc:"when the oldest of those that are not taken was tried first"`
	Next      time.Time `json:"next,omitzero" doc:"when one of them is tried again"`
	Failures  int       `json:"failures,omitempty" doc:"calls in a row without an answer, or with one that says that the receiver does not work"`
	Waiting   int       `json:"waiting,omitempty" doc:"for how many names an event is not taken"`
	Lost      int64     `json:"lost,omitempty" doc:"how many events were given up, or were too old to be kept before they were taken"`
	Delivered time.Time `json:"delivered,omitzero" doc:"last"`
	// Secret is what events are signed with. Only the answer that made it has it.
	Secret    string    `json:"secret,omitempty" doc:"what events are signed with; it is shown here and never again"`
	OldSecret time.Time `json:"old_secret_until,omitzero" doc:"until when the secret before signs too"`
	ETag      string    `json:"etag"`
}

// InvalidError says what is wrong with a webhook that somebody wants.
type InvalidError struct {
	Field string // as the API names it
	Why   string
}

// Error names both.
func (e *InvalidError) Error() string { return e.Field + ": " + e.Why }

func info(w store.Webhook, now time.Time) Info {
	d := w.Delivery
	i := Info{
		Name: w.Name, Tenant: w.Tenant, URL: w.URL, Kinds: kindsOf(w), Created: w.Created, State: StateGood, Problem: d.Problem, Since: d.Since,
		Failures: d.Failures, Waiting: len(d.Held), Lost: d.Lost + w.Forgotten, Delivered: d.Delivered, ETag: w.ETag(),
	}
	if now.Before(w.OldUntil) {
		i.OldSecret = w.OldUntil
	}
	switch {
	case d.Paused:
		i.State = StatePaused
	case !d.Since.IsZero():
		i.State, i.Next = StateFailing, cmp.Or(d.Due, d.Rest)
	}
	return i
}

// All returns the webhooks of a tenant by name, or with "" those of the service.
func (h *Webhooks) All(ctx context.Context, tenant string) ([]Info, error) {
	all, err := h.cfg.Store.Webhooks(ctx, tenant)
	if err != nil {
		return nil, err
	}
	infos := make([]Info, 0, len(all))
	for _, w := range all {
		infos = append(infos, info(w, time.Now()))
	}
	return infos, nil
}

// One returns a webhook, or store.ErrNotFound.
func (h *Webhooks) One(ctx context.Context, tenant, name string) (Info, error) {
	w, err := h.cfg.Store.Webhook(ctx, tenant, name)
	if err != nil {
		return Info{}, err
	}
	return info(w, time.Now()), nil
}

// Put adds a webhook, or has one be as a spec says; with rotate one that is there gets another secret, and the one before
// signs too for a day. IfMatch, if not empty, is the ETag that it must have, or "*". The errors are those of
// [store.Webhooks], and [*InvalidError].
func (h *Webhooks) Put(ctx context.Context, tenant, name string, spec Spec, ifMatch string, rotate bool) (i Info, added bool, err error) {
	if err := cmp.Or(checkName(name), checkURL(spec.URL), checkKinds(spec.Kinds)); err != nil {
		return Info{}, false, err
	}
	for range putTries {
		i, added, err = h.put(ctx, tenant, name, spec, ifMatch, rotate)
		lost := errors.Is(err, store.ErrExists) || errors.Is(err, store.ErrMismatch) && ifMatch == ""
		if !lost { // to somebody who put it at the same time
			break
		}
	}
	return i, added, err
}

func (h *Webhooks) put(ctx context.Context, tenant, name string, spec Spec, ifMatch string, rotate bool) (Info, bool, error) {
	now := time.Now()
	w, err := h.cfg.Store.Webhook(ctx, tenant, name)
	added := errors.Is(err, store.ErrNotFound)
	switch {
	case err != nil && !added:
		return Info{}, false, err
	case ifMatch != "" && (added || ifMatch != "*" && ifMatch != w.ETag()):
		return Info{}, false, fmt.Errorf("put webhook %q: %w", name, store.ErrMismatch)
	}
	etag := w.ETag()
	fresh := added || rotate || w.Damaged
	if fresh {
		w.Old, w.OldUntil = w.Secret, time.Time{}
		if len(w.Old) > 0 {
			w.OldUntil = now.Add(rotateTime)
		}
		w.Secret = make([]byte, secretSize)
		if _, err := rand.Read(w.Secret); err != nil {
			return Info{}, false, fmt.Errorf("make a secret: %w", err)
		}
	}
	w.URL = spec.URL
	w.Kinds = slices.Compact(slices.Sorted(slices.Values(spec.Kinds)))
	if added {
		w.Tenant, w.Name, w.Created = tenant, name, now
		err = h.cfg.Store.AddWebhook(ctx, w, now)
	} else {
		err = h.cfg.Store.ChangeWebhook(ctx, w, etag, now)
	}
	if err != nil {
		return Info{}, false, err
	}
	i, err := h.One(ctx, tenant, name)
	if fresh {
		i.Secret = secretPrefix + base64.StdEncoding.EncodeToString(w.Secret)
	}
	return i, added, err
}

// Delete forgets a webhook, or returns store.ErrNotFound or store.ErrMismatch.
func (h *Webhooks) Delete(ctx context.Context, tenant, name, ifMatch string) error {
	return h.cfg.Store.DeleteWebhook(ctx, tenant, name, ifMatch, time.Now())
}

// Resume has a webhook that paused or fails go on now, or returns store.ErrNotFound.
func (h *Webhooks) Resume(ctx context.Context, tenant, name string) (Info, error) {
	if err := h.cfg.Store.ResumeWebhook(ctx, tenant, name, time.Now()); err != nil {
		return Info{}, err
	}
	return h.One(ctx, tenant, name)
}

// Tested is what came of a test.
type Tested struct {
	Taken   bool   `json:"taken" doc:"the receiver answered with a status of success"`
	Status  int    `json:"status,omitempty" doc:"of HTTP; without one, there was no answer"`
	Problem string `json:"problem,omitempty" doc:"why it does not count as taken"`
	Millis  int64  `json:"milliseconds" doc:"how long that took"`
	ID      string `json:"id" doc:"of the call, as in its header webhook-id"`
}

// Test makes a call of type [KindTest] now, whatever else waits, and says what came of it. Nothing is kept of it. It may
// take as long as a receiver takes to answer: how many run at a time is for the caller to bound.
func (h *Webhooks) Test(ctx context.Context, tenant, name string) (Tested, error) {
	w, err := h.cfg.Store.Webhook(ctx, tenant, name)
	if err != nil {
		return Tested{}, err
	}
	if w.Damaged {
		return Tested{Problem: problemDamaged}, nil
	}
	body, err := message(store.Event{
		Kind: KindTest, At: time.Now(), Tenant: tenant, Name: name, Text: "a test: the receiver can be reached, and should verify the signature",
	})
	if err != nil {
		return Tested{}, err
	}
	id := "msg_" + strings.ToLower(rand.Text())
	a := h.send(ctx, w, id, body)
	if a.detail != nil {
		h.cfg.Log.Info("test of a webhook failed", "tenant", tenant, "id", name, "err", a.detail)
	}
	return Tested{Taken: a.problem == "", Status: a.status, Problem: a.problem, Millis: a.took.Milliseconds(), ID: id}, nil
}

func checkName(name string) error {
	if name == "" || len(name) > 63 || name[0] == '-' || name[len(name)-1] == '-' ||
		strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return &InvalidError{"name", fmt.Sprintf("%q is no name; up to 63 lower-case letters, digits and hyphens, none of these first or last", name)}
	}
	return nil
}

// checkURL does not repeat the URL, which may hold a secret. Where its host leads is looked at when it is called.
func checkURL(text string) error {
	u, err := url.Parse(text)
	why := ""
	switch {
	case err != nil || len(text) > maxURL:
		why = "is no URL; write one like https://panel.example.net/hooks"
	case u.Scheme != "https" || u.Hostname() == "":
		why = "has to begin with https:// and a host"
	case u.User != nil:
		why = "has a user in it; calls are signed, and need no password"
	case u.Fragment != "":
		why = "has a fragment (#…), which is not sent"
	default:
		// What a request cannot be made of is none, either.
		if _, err := http.NewRequest(http.MethodPost, text, http.NoBody); err == nil {
			return nil
		}
		why = "is no URL; write one like https://panel.example.net/hooks"
	}
	return &InvalidError{"url", why}
}

func checkKinds(kinds []string) error {
	for _, kind := range kinds {
		if !slices.Contains(store.Kinds(), kind) {
			return &InvalidError{"kinds", fmt.Sprintf("there is no kind %q; there are: %s", kind, strings.Join(store.Kinds(), ", "))}
		}
	}
	return nil
}
