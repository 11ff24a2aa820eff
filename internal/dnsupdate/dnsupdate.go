// Package dnsupdate writes TXT records through accounts at DNS providers, and observes what the authoritative servers
// answer. The two halves never trust each other: an [Account] that returns nil says that the provider took the change,
// and only an [Observer] says that the world can see it. Servers acknowledge changes and drop them (BIND and Knot do so
// where a CNAME is), and secondaries lag behind.
//
// A policy domain has exactly one TXT record that begins with "v=STSv1" at its _mta-sts name; with none or with two it
// has no policy (RFC 8461, Section 3.1). So a record is never deleted and written anew, nor written and then tidied:
// a [Change] replaces the old value by the new one in one step.
//
// At one name there can be three kinds of TXT:
//
//   - ours: the values that a Change names, in Remove and in Add;
//   - foreign STSv1 records (see [policygen.IsSTSv1]) that the Change does not name. They are never touched. Nothing is
//     added beside them: the error is [ErrConflict], and whether to adopt them is decided above, by who knows the history.
//     A Change that only removes goes ahead: where a domain left and its new provider's record stands beside ours, there
//     is no policy until ours is gone;
//   - strangers: everything else (site verifications, SPF). They are never touched, byte for byte.
//
// The same holds for the TLSRPTv1 record at an _smtp._tls name (RFC 8460, Section 3): a Change that adds one takes further
// TLSRPTv1 records for foreign, and STSv1 records for strangers.
//
// What an account can hold to depends on its provider. RFC 2136 has prerequisites, and Route 53 deletes only what is said
// exactly: the server compares and swaps by itself, and two writers anywhere cannot harm each other. The other APIs have
// nothing of the kind: there the account looks before it writes, with one writer per name in the process; that no other
// process writes at the same time is the caller's part (leases in the store). All but PowerDNS's, where a write is one
// transaction, are looked at again afterwards.
package dnsupdate

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/stspub/stspub/internal/config"
)

// Change replaces TXT values at one name, in one step. Without Add it only removes, whatever else is there.
type Change struct {
	// Zone is the zone that holds the record, as in [View].Zone; Name is the record's owner. A-labels, without trailing dot.
	Zone, Name string
	// TTL of the record, in whole seconds, at least 1s. Cloudflare takes 60s and more. Where deSEC or ClouDNS do not take
	// it, it is the next longer one that they do.
	TTL time.Duration
	// Remove are the values that go: all character-strings of a record joined. Those that are not there are no error.
	Remove []string
	// Add is the value that comes, at most 255 octets of printable ASCII without quotes and backslashes; empty: none.
	Add string
}

// Account writes TXT records at one DNS provider. It is safe for concurrent use; changes of one name wait for each other.
//
// After Apply returned nil, Add is there exactly once (if it is not empty), no value of Remove is (but Add, if it is
// among them), and every other TXT record of the name is as it was. That this is so already is success as well, so a call
// whose answer was lost is simply repeated. A Change with Add never makes the name hold zero STSv1 records, or two, not
// for a moment, unless it did so before. Where it finds an STSv1 record that it does not name, nothing is changed and the
// error is ErrConflict. For a Change without Add such a record is no conflict, and stays byte for byte.
//
// Errors are of type [*Error]. After one of kind [KindUnavailable] it is not known whether the change was made, or will
// still be. Apply takes 30 seconds at most, however the provider behaves.
//
// Where a provider takes several changes of one zone in one request, calls that wait at the same moment share one. A
// request that fails as a whole leaves each of its changes with an error of its own.
type Account interface {
	Name() string     // as in the configuration
	Provider() string // as in the configuration: "cloudflare", "rfc2136", …
	Rate() Rate
	Apply(ctx context.Context, c Change) error
}

// Rate is how fast an account may write when it has much to do. Network and provider may be slower.
type Rate struct {
	Changes float64 // a second, at most; 0: none at all
	Batch   int     // changes of one zone that go into one write; 1: each is a write of its own
}

// Options are common to all accounts. The zero value is good.
type Options struct {
	HTTP    http.RoundTripper // for providers with an HTTP API; nil: as http.DefaultTransport
	Log     *slog.Logger      // nil: silent
	Metrics *Metrics          // nil: not counted
	// Dial connects to the provider; nil: directly, or for an HTTP API as http.DefaultTransport does. Beside HTTP it counts
	// for DNS only.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// DryRun has every write refused where it would leave the process, with [ErrDryRun], and logged. Reads are made.
	DryRun bool
}

// Open makes the account of a configuration. It asks nobody; wrong credentials show at the first Apply.
func Open(a config.Account, o Options) (Account, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if transport, ok := http.DefaultTransport.(*http.Transport); ok && o.HTTP == nil && o.Dial != nil {
		transport = transport.Clone()
		transport.DialContext, transport.Proxy = o.Dial, nil // a proxy would connect in its place
		o.HTTP = transport
	}
	g := newGuard(a, o)
	var err error
	switch a.Provider {
	case "rfc2136":
		g.backend, err = newRFC2136(a, g)
	case "cloudflare":
		g.backend, err = newCloudflare(a, g, o.HTTP)
	case "route53":
		g.backend, err = newRoute53(a, g, o.HTTP)
	case "desec":
		g.backend, err = newDeSEC(a, g, o.HTTP)
	case "cloudns":
		g.backend, err = newClouDNS(a, g, o.HTTP)
	case "ovh":
		g.backend, err = newOVH(a, g, o.HTTP)
	case "mythicbeasts":
		g.backend, err = newMythicBeasts(a, g, o.HTTP)
	case "powerdns":
		g.backend, err = newPowerDNS(a, g, o.HTTP)
	default:
		err = fmt.Errorf("unknown provider %q", a.Provider)
	}
	if err != nil {
		return nil, fmt.Errorf("open account %q: %w", a.Name, err)
	}
	return g, nil
}
