package publish_test

import (
	"context"
	"slices"

	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
)

// Report implements [publish.Sight] with the records that the world's account holds.
func (w *world) Report(_ context.Context, record string) publish.TXT {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := slices.Clone(w.txt[record])
	ours := slices.DeleteFunc(slices.Clone(all), func(v string) bool { return !policygen.IsTLSRPTv1(v) })
	return publish.TXT{Zone: "test", Servers: []publish.Server{{Name: "ns1", STS: ours, Others: len(all) - len(ours), TTL: w.ttl}}}
}

// ReportDelegation implements [publish.Sight]; the delegation of one.test is that of the name _smtp._tls.one.test.
func (w *world) ReportDelegation(_ context.Context, name policygen.Name, record string) publish.Delegation {
	w.mu.Lock()
	defer w.mu.Unlock()
	owner := policygen.Name(name.ReportName())
	return publish.Delegation{Ours: w.delegation[owner], Reason: "waiting for: CNAME " + string(owner) + " → " + record}
}
