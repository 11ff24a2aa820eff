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

// Check opens an account and has it do everything that a change in a zone takes but the write: it proves that the
// credentials are good for reading there. Its errors are those of [Account].Apply.
func Check(ctx context.Context, a config.Account, zone string, o Options) error {
	o.DryRun, o.Metrics, o.Log = true, nil, slog.New(slog.DiscardHandler)
	account, err := Open(a, o)
	if err != nil {
		return err
	}
	err = account.Apply(ctx, Change{Zone: zone, Name: checkLabel + zone, TTL: time.Minute, Add: "stspub checks this account"})
	if errors.Is(err, ErrDryRun) {
		return nil
	}
	return err
}
