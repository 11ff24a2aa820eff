package daemon

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/publish"
	"github.com/stspub/stspub/internal/store"
)

// keyAccepted is where the files of the last accepted configuration are kept: gzipped JSON, path to content. Secrets are
// not among them; they are read anew.
const keyAccepted = "daemon/accepted"

// open opens the store and finds the configuration to serve. That is the file's, unless it is broken or would be refused:
// a slip of the pen and a reboot must not end the service of all domains. Then it is the last accepted one, but for what
// a node is among several, and fault says why. After an error the store is closed.
func (d *daemon) open(ctx context.Context) (fault, err error) {
	conf, warnings, broken := config.LoadUnlessKnown(d.o.ConfigPath, d.o.Env, func(conf *config.Config) bool {
		return d.openDeclared(ctx, conf)
	})
	d.warn(warnings)
	if d.store == nil {
		st, err := d.openStore(ctx, conf, broken)
		if err != nil {
			return nil, err
		}
		d.store = st
	}
	if broken == nil {
		broken = publish.Refused(ctx, d.store, conf)
		if broken == nil {
			d.conf = conf
			return nil, nil
		}
		if !errors.Is(broken, publish.ErrRefused) {
			return nil, errors.Join(broken, d.store.Close())
		}
	}
	d.conf, warnings, err = d.accepted(ctx)
	if err == nil {
		err = d.remain(ctx)
	}
	if err != nil {
		return nil, errors.Join(broken, err, d.store.Close())
	}
	d.warn(warnings)
	return broken, nil
}

// openDeclared opens the store of a configuration, and says whether that is the one whose domains it holds. What goes wrong
// is told when it goes wrong again.
func (d *daemon) openDeclared(ctx context.Context, conf *config.Config) bool {
	if conf.Store.Postgres != "" {
		return false // nodes compare what their configurations say of all domains
	}
	if _, err := os.Stat(conf.Store.Path); err != nil {
		return false // the first start, which makes no store if the domains are wrong
	}
	st, err := d.openSealed(ctx, conf.Store)
	if err != nil {
		return false
	}
	d.store = st
	return publish.IsDeclared(ctx, st, conf)
}

// openStore opens the store of a configuration, or that which a broken one names as far as can be told.
func (d *daemon) openStore(ctx context.Context, conf *config.Config, broken error) (store.Store, error) {
	if broken == nil {
		return d.openSealed(ctx, conf.Store)
	}
	at, err := config.GlanceStore(d.o.ConfigPath, d.o.Env)
	if err != nil {
		return nil, errors.Join(broken, fmt.Errorf("find the store with the last accepted configuration: %w", err))
	}
	if _, err := os.Stat(at.Path); at.Postgres == "" && errors.Is(err, fs.ErrNotExist) {
		return nil, broken // the first start
	}
	st, err := d.openSealed(ctx, at)
	if err != nil {
		return nil, errors.Join(broken, err)
	}
	return st, nil
}

// openSealed opens a store with its keys.
func (d *daemon) openSealed(ctx context.Context, s config.Store) (store.Store, error) {
	opening, opened := context.WithCancel(ctx)
	defer opened()
	go d.tellOpening(opening, time.Now()) // ends when it is open
	st, keys, err := OpenStore(ctx, s)
	d.keys, d.opened = keys, s
	return st, err
}

// tellOpening says, until ctx ends, that a store is being opened for longer than that mostly takes, so that nobody takes it
// for stuck: the first start of a new version changes tables, and nodes wait for the one that does.
func (d *daemon) tellOpening(ctx context.Context, began time.Time) {
	tick := time.NewTicker(openingTime)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			d.o.Log.Warn("still opening the store; after an upgrade its tables are changed, which may take minutes; let it end",
				"duration_ms", now.Sub(began).Milliseconds())
		}
	}
}

// openingTime is how long a store may take to open before it is said that it does, and how often.
const openingTime = 10 * time.Second

// OpenStore opens the store of a configuration with the engine and the keys that it names, which are nil where it has none.
func OpenStore(ctx context.Context, s config.Store) (store.Store, *store.Keyring, error) {
	var keys [][]byte
	for _, key := range s.Keys {
		keys = append(keys, []byte(key))
	}
	ring, err := store.NewKeyring(keys...)
	if err != nil {
		return nil, nil, fmt.Errorf("store: %w", err)
	}
	if s.Postgres != "" {
		st, err := store.OpenPostgres(ctx, string(s.Postgres), ring)
		if err != nil {
			return nil, nil, err
		}
		return st, ring, nil
	}
	st, err := store.OpenSealedSQLite(ctx, s.Path, ring)
	if err != nil {
		return nil, nil, err
	}
	return st, ring, nil
}

// remain has the last accepted configuration say of this node what is true, and not what was before the store was moved
// there, or what another node is: which store is open, and what is in [server] of its own file, or else was there at its last
// start. Only the name and the addresses of the service are the same for all.
func (d *daemon) remain(ctx context.Context) error {
	d.conf.Store = d.opened
	if d.opened.Postgres == "" {
		return nil // there is no other node
	}
	own, unread := config.GlanceServer(d.o.ConfigPath)
	if unread != nil {
		value, err := d.store.Value(ctx, keyServer(d.o.ConfigPath))
		if err == nil {
			err = json.Unmarshal(value, &own)
		}
		switch {
		case errors.Is(err, store.ErrNotFound) && d.conf.Server.Node == "" && d.conf.Server.NodeAddress == "":
			return nil // all are called after their hosts
		case errors.Is(err, store.ErrNotFound):
			return fmt.Errorf("find out which node this is: %w; the last accepted configuration is of node %q, so mend [server]",
				unread, d.conf.Server.Node)
		case err != nil:
			return fmt.Errorf("read which node this is: %w", err)
		}
	}
	own.Hostname, own.Addresses = d.conf.Server.Hostname, d.conf.Server.Addresses
	d.conf.Server = own
	return nil
}

// keyServer is where it is kept what a node with a name is, as JSON of a [config.Server], for a start with a broken file.
// Whoever has a name has a host and a place for its file that stay.
func keyServer(path string) string {
	host, err := os.Hostname()
	if err != nil {
		host = "?"
	}
	return "daemon/server/" + host + ":" + path
}

// keepServer keeps what this node is by a configuration that was taken.
func (d *daemon) keepServer(ctx context.Context, conf *config.Config) error {
	if d.opened.Postgres == "" || conf.Server.Node == "" && conf.Server.NodeAddress == "" {
		return nil
	}
	value, err := json.Marshal(conf.Server)
	if err == nil {
		err = d.store.SetValue(ctx, keyServer(d.o.ConfigPath), value)
	}
	if err != nil {
		return fmt.Errorf("keep which node this is: %w", err)
	}
	return nil
}

// copyPath is where the copy of the certificates lies: beside the database, if that is a file, and else in the folder of this
// node, if it has one; empty: there is none.
func copyPath(conf *config.Config) string {
	switch {
	case conf.Store.Postgres == "":
		return conf.Store.Path + ".certificates"
	case conf.Server.State == "":
		return ""
	}
	return filepath.Join(conf.Server.State, "stspub.certificates")
}

// reread reads the file for a reload.
func (d *daemon) reread() (*config.Config, []string, error) {
	conf, found, err := config.Load(d.o.ConfigPath, d.o.Env)
	return conf, lines(found), err
}

func lines(found []config.Warning) []string {
	var all []string
	for _, w := range found {
		all = append(all, w.String())
	}
	return all
}

// among reads from content by path.
func among(files map[string][]byte) func(path string) ([]byte, error) {
	return func(path string) ([]byte, error) {
		if content, ok := files[path]; ok {
			return content, nil
		}
		return nil, fmt.Errorf("%s: %w", path, fs.ErrNotExist)
	}
}

func (d *daemon) warn(warnings []config.Warning) {
	for _, w := range warnings {
		d.o.Log.Warn(w.String())
	}
}

// accept keeps the files of a configuration that was taken.
func (d *daemon) accept(ctx context.Context, conf *config.Config) error {
	if len(conf.Files) == 0 {
		return errors.New("keep the accepted configuration: it has no files")
	}
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	err := json.NewEncoder(z).Encode(conf.Files)
	if err == nil {
		err = z.Close()
	}
	if err == nil {
		err = d.store.SetValue(ctx, keyAccepted, b.Bytes())
	}
	if err != nil {
		return fmt.Errorf("keep the accepted configuration: %w", err)
	}
	return d.keepServer(ctx, conf)
}

// accepted is the last configuration that was taken. Secrets that cannot be read are missing in it; see openAccount.
func (d *daemon) accepted(ctx context.Context) (*config.Config, []config.Warning, error) {
	value, err := d.store.Value(ctx, keyAccepted)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil, errors.New("no configuration was accepted before, so there is none to serve in its place")
	}
	files := make(map[string][]byte)
	if err == nil {
		err = unpack(value, &files)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read the last accepted configuration: %w", err)
	}
	conf, warnings, err := config.LoadFiles(d.o.ConfigPath, d.o.Env, among(files))
	if err != nil {
		return nil, nil, fmt.Errorf("take the last accepted configuration: %w", err)
	}
	return conf, warnings, nil
}

func unpack(value []byte, files *map[string][]byte) error {
	z, err := gzip.NewReader(bytes.NewReader(value))
	if err != nil {
		return err
	}
	return json.NewDecoder(z).Decode(files)
}
