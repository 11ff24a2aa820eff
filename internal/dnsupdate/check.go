package dnsupdate

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/stspub/stspub/internal/config"
)

// checkLabel is before the name that a check asks about.
const checkLabel = "_stspub-probe."

// nobodysZone is a zone that no provider has. RFC 6761, Section 6.4.
const nobodysZone = "stspub-check.invalid"

// ErrNeedsZone says that an account cannot be tried without a zone that it is to read.
var ErrNeedsZone = errors.New("its provider does not tell wrong credentials from a zone that they are not for")

// Check opens an account and has it do everything that a change in a zone takes but the write: it proves that the
// credentials are good for reading there. Without a zone it asks for one that nobody has: that the provider looks for it
// proves the credentials alone. Where it does not, the error is ErrNeedsZone; the others are those of [Account].Apply.
func Check(ctx context.Context, a config.Account, zone string, o Options) error {
	o.DryRun, o.Metrics, o.Log = true, nil, slog.New(slog.DiscardHandler)
	account, err := Open(a, o)
	if err != nil {
		return err
	}
	anyZone := zone == ""
	if anyZone {
		if !tellsZones(a) {
			return ErrNeedsZone
		}
		zone = nobodysZone
	}
	err = account.Apply(ctx, Change{Zone: zone, Name: checkLabel + zone, TTL: time.Minute, Add: "stspub checks this account"})
	if e, ok := errors.AsType[*Error](err); ok && anyZone && e.Kind == KindNoZone || errors.Is(err, ErrDryRun) {
		return nil
	}
	return err
}

// tellsZones says whether an account's provider judges credentials before it looks for a zone, and has none that are for
// single zones.
func tellsZones(a config.Account) bool {
	switch a.Provider {
	case "cloudflare", "route53", "desec", "powerdns":
		return true
	case "cloudns":
		return !a.SubUser
	}
	return false // a server without the zone, OVH and Mythic Beasts refuse the request, whosever the key is
}
