// Package dev runs the whole of stspub on one machine, with nothing to configure and nothing outside of it: a
// certification authority, a DNS server and a mail server in the process (package lab), and the same daemon that serves
// in production. It shows each step of each domain as it happens.
//
// It also plays the customer of the alias domains, who sets the _mta-sts CNAME when told to.
package dev

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/daemon"
	"github.com/stspub/stspub/internal/httpd"
	"github.com/stspub/stspub/internal/lab"
	"github.com/stspub/stspub/internal/policygen"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

// Options are what a run is given.
type Options struct {
	Dir              string // holds ca.pem, stspub.toml, stspub.db; what is there is used again
	HTTPS, HTTP, DNS string // listen addresses
	Version          string
	Command          string // how this program is called, for the lines to paste
	Out              io.Writer
	Log              *slog.Logger
	Reload           <-chan os.Signal
}

const (
	hostname  = "mta-sts.provider.test"
	aliasZone = "sts.provider.test"
	mailHost  = "mx1.provider.test"
	secondMX  = "mx2.provider.test"
)

// dev is one run.
type dev struct {
	o     Options
	dns   *lab.DNS
	ca    *lab.CA
	mx    *lab.MX
	begun time.Time
	end   context.CancelFunc

	mu     sync.Mutex // guards the fields below, and Out
	unseen error      // of writing to Out: nobody is left to be shown anything
	zones  map[string]bool
	wanted map[policygen.Name]string // the domains of the configuration file, and where their records are
}

// Run serves until ctx ends, or until writing to Out fails, which is how a closed terminal shows: that is an error.
func Run(ctx context.Context, o Options) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d := &dev{o: o, begun: time.Now(), end: cancel, zones: make(map[string]bool)}
	d.say("", "stspub dev: everything happens on this machine; files are in %s", o.Dir)
	if err := d.startLab(ctx); err != nil {
		return err
	}
	if err := d.writeFiles(); err != nil {
		return err
	}
	conf, err := d.takeDomains()
	if err != nil {
		return err
	}
	if err := d.dropCertificates(ctx); err != nil {
		return err
	}
	var watch sync.WaitGroup
	err = daemon.Run(ctx, daemon.Options{
		ConfigPath: d.path("stspub.toml"), Env: os.Getenv, Version: o.Version, Log: o.Log, Reload: o.Reload,
		OnStep: d.onStep, OnReload: d.onReload,
		OnReady: func() { watch.Go(func() { d.watch(ctx, httpd.NewClient(conf.Server.Admin)) }) },
	})
	cancel()
	watch.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	return errors.Join(err, d.unseen)
}

func (d *dev) path(name string) string { return filepath.Join(d.o.Dir, name) }

// startLab starts the small internet: its zones say what a provider and its customers would have set.
func (d *dev) startLab(ctx context.Context) error {
	httpPort, err := free(ctx, "--http", d.o.HTTP)
	if err != nil {
		return err
	}
	tlsPort, err := free(ctx, "--https", d.o.HTTPS)
	if err != nil {
		return err
	}
	key, err := d.tsigKey()
	if err != nil {
		return err
	}
	zones := []lab.Zone{{Name: "provider.test", Text: "mta-sts A 127.0.0.1\nmx1 A 127.0.0.1\nmx2 A 127.0.0.1\n"}, {Name: aliasZone}}
	for _, zone := range zones {
		d.zones[zone.Name] = true
	}
	if d.dns, err = lab.StartDNS(ctx, lab.DNSOptions{Addr: d.o.DNS, Zones: zones, Keys: map[string]string{"stspub.": key}}); err != nil {
		return atFlag("--dns", err)
	}
	d.say("", "DNS server at %s for provider.test, %s and the domains", d.dns.Addr, aliasZone)
	if d.ca, err = lab.StartCA(ctx, lab.CAOptions{DNS: d.dns.Addr, HTTPPort: httpPort, TLSPort: tlsPort, Log: d.o.Log}); err != nil {
		return err
	}
	d.say("", "ACME CA at %s", d.ca.DirectoryURL)
	if d.mx, err = lab.StartMX(ctx, "127.0.0.1:0", mailHost, secondMX); err != nil {
		return err
	}
	d.say("", "mail server with STARTTLS at %s for %s and %s", d.mx.Addr, mailHost, secondMX)
	return nil
}

// free returns the port of an address that the daemon is to listen at. It tries that before anything has begun: the
// daemon would name a key of a file that the user has not seen yet.
func free(ctx context.Context, flag, addr string) (int, error) {
	ln, err := httpd.Listen(ctx, addr)
	if err != nil {
		return 0, atFlag(flag, err)
	}
	defer ln.Close()
	a, err := net.ResolveTCPAddr("tcp", ln.Addr().String())
	if err != nil {
		return 0, atFlag(flag, err)
	}
	return a.Port, nil
}

// atFlag says how to listen elsewhere.
func atFlag(flag string, err error) error {
	return fmt.Errorf("%s: %w; choose another address with %s ADDR:PORT", flag, err, flag)
}

// tsigKey makes the key for DNS updates, or takes the one of an earlier run.
func (d *dev) tsigKey() (string, error) {
	path := d.path("tsig.key")
	have, err := os.ReadFile(path)
	if err == nil {
		return strings.TrimSpace(string(have)), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read the TSIG key: %w", err)
	}
	var raw [32]byte
	_, _ = rand.Read(raw[:]) // never fails, says crypto/rand
	key := base64.StdEncoding.EncodeToString(raw[:])
	if err := os.WriteFile(path, []byte(key+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("write the TSIG key: %w", err)
	}
	return key, nil
}

// dropCertificates forgets those of an earlier run: the authority is new at every start, so nobody would believe them.
// DNS is new as well, so every domain is to be looked at.
func (d *dev) dropCertificates(ctx context.Context) error {
	path := d.path("stspub.db")
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	st, err := store.OpenSQLite(ctx, path)
	if err != nil {
		return err
	}
	var names []string
	err = st.EachCertificate(ctx, func(c store.Certificate) error {
		names = append(names, c.Name)
		return nil
	})
	for _, name := range names {
		err = errors.Join(err, st.DeleteCertificate(ctx, name))
	}
	return errors.Join(err, st.Wake(ctx, "", time.Now()), st.Close())
}

// writeFiles writes what to trust, and the configuration if there is none yet.
func (d *dev) writeFiles() error {
	ca := slices.Concat(d.ca.RootPEM, d.mx.RootPEM, d.ca.DirectoryCAPEM)
	if err := os.WriteFile(d.path("ca.pem"), ca, 0o600); err != nil {
		return fmt.Errorf("write ca.pem: %w", err)
	}
	return d.writeConfig()
}

// takeDomains reads the configuration, and has DNS hold what the customers of its domains would have set.
func (d *dev) takeDomains() (*config.Config, error) {
	conf, _, err := config.Load(d.path("stspub.toml"), os.Getenv) // the daemon tells the warnings
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.wanted = make(map[policygen.Name]string)
	for _, domain := range conf.Domains {
		name := string(domain.Name)
		d.wanted[domain.Name] = publish.RecordName(conf.Alias.Zone, store.Domain{
			Name: domain.Name, Tenant: publish.Tenant, MXSet: domain.MXSet, Publish: domain.Publish,
		})
		if d.zones[name] {
			continue
		}
		err := d.dns.AddZone(lab.Zone{Name: name, Text: "@ MX 10 " + mailHost + ".\nmta-sts CNAME " + hostname +
			".\n_smtp._tls TXT \"v=TLSRPTv1; rua=mailto:tls@provider.test\"\n"})
		if err != nil {
			return nil, fmt.Errorf("set DNS of %s: %w", name, err)
		}
		d.zones[name] = true
	}
	return conf, nil
}

// onStep prints a step, and plays the customer.
func (d *dev) onStep(name policygen.Name, step, message string) {
	d.say(string(name), "%-10s  %s", step, message)
	if step == publish.StepDelegation {
		d.beCustomer(name)
	}
}

// beCustomer sets the CNAME that the owner of a domain is asked for.
func (d *dev) beCustomer(name policygen.Name) {
	d.mu.Lock()
	target := d.wanted[name] + "."
	d.mu.Unlock()
	if slices.Contains(d.dns.Values(name.RecordName(), "CNAME"), target) {
		return
	}
	if err := d.dns.Set(name.RecordName(), "CNAME", target); err != nil {
		d.o.Log.Error("customer's CNAME not set", "domain", name, "err", err)
		return
	}
	d.say(string(name), "%-10s  sets %s CNAME %s", "(customer)", name.RecordName(), target)
}

func (d *dev) sayReady(names []policygen.Name) {
	_, httpsPort, _ := net.SplitHostPort(d.o.HTTPS)
	_, mxPort, _ := net.SplitHostPort(d.mx.Addr)
	dnsHost, dnsPort, _ := net.SplitHostPort(d.dns.Addr)
	var b strings.Builder
	b.WriteString("\nTry:\n")
	for _, name := range names {
		fmt.Fprintf(&b, "  curl -i --resolve %[1]s:%[2]s:%[3]s --cacert %[4]s https://%[1]s:%[2]s/.well-known/mta-sts.txt\n",
			name.PolicyHost(), httpsPort, host(d.o.HTTPS), d.path("ca.pem"))
		fmt.Fprintf(&b, "  dig @%s -p %s +noall +answer %s TXT\n", dnsHost, dnsPort, name.RecordName())
		fmt.Fprintf(&b, "  %s check %s --resolver %s --ca %s --https-port %s --smtp-port %s\n",
			d.o.Command, name, d.dns.Addr, d.path("ca.pem"), httpsPort, mxPort)
	}
	fmt.Fprintf(&b, "  %s domain list --config %s\n", d.o.Command, d.path("stspub.toml"))
	fmt.Fprintf(&b, "  %s reload --config %s   # stspub plan says beforehand what it will do\n", d.o.Command, d.path("stspub.toml"))
	fmt.Fprintf(&b, "\nSee a change: in %s add %q to mx, or take the # away there, then: kill -HUP %d\n",
		d.path("stspub.toml"), secondMX, os.Getpid())
	b.WriteString("Ctrl-C ends it.\n\nready\n")
	d.print(b.String())
}

// host is the address to connect to of one to listen at.
func host(addr string) string {
	h, _, _ := net.SplitHostPort(addr)
	if ip, err := netip.ParseAddr(h); err != nil || ip.IsUnspecified() {
		return "127.0.0.1"
	}
	return h
}

func (d *dev) onReload(r publish.ReloadReport, err error) {
	for _, w := range r.Warnings {
		d.say("", "warning: %s", w)
	}
	if err != nil {
		d.say("", "the configuration is not taken, and everything stays as it was:\n%v", err)
		return
	}
	d.say("", "configuration taken: %d domains added, %d changed, %d removed, %d restored", r.Added, r.Changed, r.Removed, r.Restored)
	if _, err := d.takeDomains(); err != nil {
		d.say("", "new domains have no DNS: %v", err)
	}
}

// say prints one line, with the time since the start.
func (d *dev) say(name, format string, args ...any) {
	message := fmt.Sprintf(format, args...)
	if name != "" {
		message = fmt.Sprintf("%-12s %s", name, message)
	}
	d.print(fmt.Sprintf("%6.1fs  %s\n", time.Since(d.begun).Seconds(), message))
}

// print ends the run when nobody reads any more: a terminal that closes sends SIGHUP, which is a reload here.
func (d *dev) print(text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := io.WriteString(d.o.Out, text); err != nil && d.unseen == nil {
		d.unseen = fmt.Errorf("print steps: %w", err)
		d.end()
	}
}
