package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/stspub/stspub/internal/lab"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

// settings is an ordinary configuration for a laboratory. The CA is not there: nothing needs it.
const settings = `[server]
hostname = "{hostname}"
https = "{https}"
http = "off"
admin = "unix:{dir}/admin.sock"
[store]
url = "sqlite:{dir}/stspub.db"
[dns]
resolvers = ["{dns}"]
stub = { "." = ["{dns}"] }
[acme.none]
directory = "https://127.0.0.1:9/directory"
[account.lab]
provider = "rfc2136"
server = "{dns}"
[check]
every = "168h"
https_port = {port}
ca_file = "ca.pem"
[mxset.main]
mx = ["{mx}"]
mode = "enforce"
max_age = "2w"
domains_file = "domains.txt"
publish = "zone"
account = "lab"
`

// buildStspub makes the binary as it is shipped.
func buildStspub(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "stspub")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", path, "github.com/stspub/stspub/cmd/stspub")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("build stspub: %w", err)
	}
	return path, nil
}

// prepareStspub fills a directory with a configuration and a store in which every domain is live, and returns the
// program to run. The domains are due in a year: what is measured is serving. The hundred that stspub compares with DNS
// after every start find there what they look for.
func prepareStspub(ctx context.Context, w *world, binary, dir, addr, dnsAddr string) (program, error) {
	var names strings.Builder
	for _, d := range w.domains {
		names.WriteString(string(d.name) + "\n")
	}
	_, port, _ := strings.Cut(addr, ":")
	config := strings.NewReplacer("{hostname}", hostname, "{https}", addr, "{port}", port, "{dir}", dir, "{dns}", dnsAddr, "{mx}", mailHost).
		Replace(settings)
	for name, content := range map[string][]byte{
		"stspub.toml": []byte(config), "domains.txt": []byte(names.String()), "ca.pem": w.root,
	} {
		if err := writeFile(filepath.Join(dir, name), content); err != nil {
			return program{}, err
		}
	}
	p := program{name: "stspub", addr: addr, dir: dir, args: []string{binary, "serve", "--config", filepath.Join(dir, "stspub.toml")}}
	return p, w.fill(ctx, filepath.Join(dir, "stspub.db"))
}

// fill makes the store.
func (w *world) fill(ctx context.Context, path string) error {
	s, err := store.OpenSQLite(ctx, path)
	if err != nil {
		return err
	}
	now := time.Now()
	d := store.Declaration{Owner: store.OwnerFile, MXSets: []store.MXSet{{Tenant: "default", Name: "main", Policy: w.policy}}}
	for _, one := range w.domains {
		d.Domains = append(d.Domains, store.Domain{
			Name: one.name, Tenant: "default", MXSet: "main", Publish: store.PublishZone, Account: "lab", Owner: store.OwnerFile,
		})
	}
	_, err = s.Declare(ctx, d, now)
	if err == nil {
		err = s.SaveCertificate(ctx, w.service)
	}
	var g errgroup.Group
	g.SetLimit(512) // writes that come at once share a commit
	for i := 0; i < len(w.domains) && err == nil; i++ {
		g.Go(func() error { return w.publish(ctx, s, w.domains[i], now) })
	}
	if published := g.Wait(); err == nil {
		err = published
	}
	if closed := s.Close(); err == nil {
		err = closed
	}
	return err
}

// publish brings one domain to where the reconciler would have brought it.
func (w *world) publish(ctx context.Context, s store.Store, one domain, now time.Time) error {
	d, err := s.Domain(ctx, one.name)
	if err != nil {
		return err
	}
	d.State = store.State{
		Served: w.policy.Text(), Dirty: true, Record: one.name.RecordName(), Zone: zone, Intended: one.id,
		Step: publish.StepVerify, Since: now,
	}
	if err := s.Save(ctx, &d, now); err != nil {
		return err
	}
	d.State.ID, d.State.Intended, d.State.Dirty = one.id, "", false
	d.State.Step, d.State.Checked = publish.StepLive, now
	d.Due = now.AddDate(1, 0, 0)
	if err := s.Save(ctx, &d, now); err != nil {
		return err
	}
	return s.SaveCertificate(ctx, one.certificate)
}

// startDNS answers for all domains.
func startDNS(ctx context.Context, w *world) (*lab.DNS, error) {
	return lab.StartDNS(ctx, lab.DNSOptions{Zones: []lab.Zone{{Name: zone, Text: w.records()}}})
}
