package store

import (
	"context"
	"fmt"
)

// readsAtOnce is how many reads of one tenant's requests run at a time in a process. More wait for these.
const readsAtOnce = 2

type readerKey struct{}

// reader is who reads.
type reader struct {
	vital  bool   // others go by how long it takes
	asked  bool   // a request does
	tenant string // whose request; "": the service's
}

// WithReader has what is read with a context be read for a request, beside what this process reads for itself: slow requests
// delay each other alone. Those of a tenant wait for each other, two at a time; "" is the service.
func WithReader(ctx context.Context, tenant string) context.Context {
	return context.WithValue(ctx, readerKey{}, reader{asked: true, tenant: tenant})
}

// vital has what is read with a context wait for no other read, whoever asks for it: it is small.
func vital(ctx context.Context) context.Context {
	return context.WithValue(ctx, readerKey{}, reader{vital: true})
}

func readerOf(ctx context.Context) reader {
	who, _ := ctx.Value(readerKey{}).(reader)
	return who
}

// turn returns when a read may run, until leave is called.
func (r reader) turn(ctx context.Context, asked *places) (leave func(), err error) {
	if r.tenant == "" {
		return func() {}, nil
	}
	if leave, err = asked.enter(ctx, r.tenant); err != nil {
		return nil, fmt.Errorf("wait for other reads of the tenant: %w", err)
	}
	return leave, nil
}
