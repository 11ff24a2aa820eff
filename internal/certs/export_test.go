package certs

import "context"

// Items is how many names the scheduler has an object for.
func (k *Keeper) Items() int {
	k.schedule.mu.Lock()
	defer k.schedule.mu.Unlock()
	return len(k.schedule.items)
}

// CopyUpTo writes a copy, as [Keeper.RunCopies] does once a minute.
func (k *Keeper) CopyUpTo(ctx context.Context, change int64) error { return k.copyUpTo(ctx, change) }

// Hold joins the reasons to hold an order.
func Hold(name string, reasons ...error) error { return hold(name, reasons...) }
