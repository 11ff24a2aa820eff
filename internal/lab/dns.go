package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/miekg/dns"
)

// Fault is a way for a DNS server to fail.
type Fault int

// The faults.
const (
	FaultNone     Fault = iota
	FaultServfail       // answers SERVFAIL
	FaultSilent         // does not answer
	FaultRefused        // answers REFUSED
)

// DNSOptions says what a [DNS] server answers for.
type DNSOptions struct {
	Addr  string // of UDP and TCP alike; default "127.0.0.1:0"
	Zones []Zone
	// Keys are the TSIG keys (name to base64 secret) that may update every zone. With none, updates need no signature.
	Keys map[string]string
}

// DNS is an authoritative DNS server for a few zones. It refuses what is outside of them, follows CNAMEs from one of
// its zones into another, knows wildcards (RFC 4592), zone cuts, NXDOMAIN and NODATA, and takes dynamic updates.
// Its methods may be called at the same time.
type DNS struct {
	Addr string // "ADDR:PORT" it listens at

	servers []*dns.Server
	keys    bool

	mu      sync.RWMutex // guards the fields below and what is in the zones
	zones   map[string]*zone
	faults  map[string]Fault
	queries map[query]int
	updates int
}

type query struct {
	name string
	typ  uint16
}

// StartDNS starts a server. It ends with ctx or [DNS.Close].
func StartDNS(ctx context.Context, o DNSOptions) (*DNS, error) {
	if o.Addr == "" {
		o.Addr = "127.0.0.1:0"
	}
	d := &DNS{
		keys:    len(o.Keys) > 0,
		zones:   make(map[string]*zone),
		faults:  make(map[string]Fault),
		queries: make(map[query]int),
	}
	for _, z := range o.Zones {
		if err := d.AddZone(z); err != nil {
			return nil, err
		}
	}
	l, p, err := listenBoth(ctx, o.Addr)
	if err != nil {
		return nil, fmt.Errorf("start DNS server: %w", err)
	}
	d.Addr = l.Addr().String()
	secrets := make(map[string]string)
	for name, secret := range o.Keys {
		secrets[dns.CanonicalName(name)] = secret
	}
	for _, s := range []*dns.Server{{Listener: l}, {PacketConn: p}} {
		s.Handler = dns.HandlerFunc(d.serve)
		s.TsigSecret = secrets
		s.MsgAcceptFunc = accept
		s.UDPSize = dns.MaxMsgSize
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go s.ActivateAndServe() // ended by Close
		<-started
		d.servers = append(d.servers, s)
	}
	context.AfterFunc(ctx, func() { _ = d.Close() }) // nobody is left to tell
	return d, nil
}

// listenBoth listens on one port by TCP and UDP. A port chosen by the one may be taken for the other; then it chooses anew.
func listenBoth(ctx context.Context, addr string) (net.Listener, net.PacketConn, error) {
	var lc net.ListenConfig
	var errs []error
	for range 10 {
		l, err := lc.Listen(ctx, "tcp", addr)
		if err != nil {
			return nil, nil, err
		}
		p, err := lc.ListenPacket(ctx, "udp", l.Addr().String())
		if err == nil {
			return l, p, nil
		}
		errs = append(errs, err, l.Close())
		if !strings.HasSuffix(addr, ":0") {
			break
		}
	}
	return nil, nil, errors.Join(errs...)
}

// accept lets queries and updates in. The library's own rule refuses updates.
func accept(h dns.Header) dns.MsgAcceptAction {
	const response = 1 << 15
	switch opcode := int(h.Bits>>11) & 0xF; {
	case h.Bits&response != 0:
		return dns.MsgIgnore
	case opcode == dns.OpcodeUpdate:
		return dns.MsgAccept
	default:
		return dns.DefaultMsgAcceptFunc(h)
	}
}

// Close ends the server.
func (d *DNS) Close() error {
	var errs []error
	for _, s := range d.servers {
		// A second Close finds nothing to close.
		if err := s.Shutdown(); err != nil && !strings.Contains(err.Error(), "not started") {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// AddZone adds a zone, or replaces it.
func (d *DNS) AddZone(z Zone) error {
	zz, err := parseZone(z)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.zones[zz.name] = zz
	return nil
}

// Set replaces the record set of a name and type ("TXT") by the values, in master file format; without values it
// removes it. The TTL is 60.
func (d *DNS) Set(name, typ string, values ...string) error {
	t, ok := dns.StringToType[typ]
	if !ok {
		return fmt.Errorf("set %q: unknown type %q", name, typ)
	}
	name = dns.CanonicalName(name)
	var rrs []dns.RR
	for _, v := range values {
		rr, err := dns.NewRR(name + " 60 IN " + typ + " " + v)
		if err != nil {
			return fmt.Errorf("set %q: %w", name, err)
		}
		rrs = append(rrs, rr)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	z := d.zone(name)
	if z == nil {
		return fmt.Errorf("set %q: no zone for it", name)
	}
	z.remove(name, t, nil)
	for _, rr := range rrs {
		z.add(rr)
	}
	z.changed()
	return nil
}

// Values returns what is stored at a name and type, in master file format, TXT without the quotes; neither CNAMEs nor
// wildcards are followed.
func (d *DNS) Values(name, typ string) []string {
	d.mu.RLock()
	defer d.mu.RUnlock()
	name = dns.CanonicalName(name)
	z := d.zone(name)
	if z == nil {
		return nil
	}
	var out []string
	for _, rr := range z.get(name, dns.StringToType[typ]) {
		if txt, ok := rr.(*dns.TXT); ok {
			out = append(out, strings.Join(txt.Txt, ""))
			continue
		}
		out = append(out, strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	slices.Sort(out)
	return out
}

// SetFault makes the server fail for a name and all below it, or for everything with "."; the closest name counts.
// Updates fail by the name of their zone.
func (d *DNS) SetFault(name string, f Fault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults[dns.CanonicalName(name)] = f
}

// Queries counts the queries for a name and type so far; type "" counts all types.
func (d *DNS) Queries(name, typ string) int {
	d.mu.RLock()
	defer d.mu.RUnlock()
	n := 0
	for q, count := range d.queries {
		if q.name == dns.CanonicalName(name) && (typ == "" || q.typ == dns.StringToType[typ]) {
			n += count
		}
	}
	return n
}

// Updates counts the dynamic updates that were carried out so far.
func (d *DNS) Updates() int {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.updates
}

// Port returns the port of [DNS.Addr].
func (d *DNS) Port() int {
	_, port, _ := net.SplitHostPort(d.Addr)
	n, _ := strconv.Atoi(port) // Addr is the listener's own
	return n
}

// zone returns the closest zone at or above a name, or nil. The caller holds mu.
func (d *DNS) zone(name string) *zone {
	for {
		if z := d.zones[name]; z != nil {
			return z
		}
		i, end := dns.NextLabel(name, 0)
		if end {
			return d.zones["."]
		}
		name = name[i:]
	}
}
