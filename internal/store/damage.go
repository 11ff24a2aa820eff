package store

import (
	"context"
	"errors"
	"fmt"
)

// DamagedError says that certificates of the store cannot be read, and never will be. Who obtains others and saves them has
// mended it.
type DamagedError struct {
	Names []string // of the certificates
	Err   error    // what is wrong with the first of them

	seal string // it is said to be sealed with a key that is not here; empty: that is not what is wrong
}

// Error tells of the first, and how many more there are.
func (d *DamagedError) Error() string {
	if n := len(d.Names) - 1; n > 0 {
		return fmt.Sprintf("%v, and %d more cannot be read", d.Err, n)
	}
	return d.Err.Error()
}

// Unwrap returns what is wrong with the first.
func (d *DamagedError) Unwrap() error { return d.Err }

// damages are what was passed over in reading certificates.
type damages struct {
	all   DamagedError
	seals map[string]error // by a key that is not here
}

// past reads rows as scan does, but for damaged ones, which it notes, and returns without a name.
func (d *damages) past(scan func(row) (Certificate, error)) func(row) (Certificate, error) {
	return func(r row) (Certificate, error) {
		c, err := scan(r)
		one, damaged := errors.AsType[*DamagedError](err)
		if !damaged {
			return c, err
		}
		if one.seal != "" {
			if d.seals == nil {
				d.seals = make(map[string]error)
			}
			d.seals[one.seal] = one.Err
		}
		if d.all.Err == nil {
			d.all.Err = one.Err
		}
		d.all.Names = append(d.all.Names, one.Names...)
		return Certificate{}, nil
	}
}

// error returns a [*DamagedError] if there is one. What is sealed with a key that the store knows of, but not this process,
// is not damaged: another process got a new one.
func (d *damages) error(ctx context.Context, t *tables, doing string) error {
	if d.all.Err == nil {
		return nil
	}
	if len(d.seals) > 0 {
		seals, err := collect(ctx, t, doing, scanSeal, querySeals)
		if err != nil {
			return err
		}
		for _, s := range seals {
			if err := d.seals[s.id]; err != nil {
				return said(doing, err)
			}
		}
	}
	return said(doing, &d.all)
}
