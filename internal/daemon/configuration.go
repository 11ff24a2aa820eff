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

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/store"
)

// keyAccepted is where the files of the last accepted configuration are kept: gzipped JSON, path to content. Secrets are
// not among them; they are read anew.
const keyAccepted = "daemon/accepted"

// load reads the configuration file. Where it is broken, the last accepted configuration is taken, and fault says why:
// a slip of the pen and a reboot must not end the service of all domains.
func load(ctx context.Context, o Options) (conf *config.Config, warnings []string, fault string, err error) {
	conf, found, err := config.Load(o.ConfigPath, o.Env)
	if err == nil {
		return conf, texts(found), "", nil
	}
	fault = err.Error()
	path := config.StorePath(o.ConfigPath)
	if _, missing := os.Stat(path); missing != nil {
		return nil, nil, "", err // the first start
	}
	st, openErr := store.OpenSQLite(ctx, path)
	if openErr != nil {
		return nil, nil, "", errors.Join(err, openErr)
	}
	d := &daemon{o: o, store: st}
	conf, acceptedErr := d.accepted(ctx)
	if closeErr := st.Close(); closeErr != nil {
		return nil, nil, "", closeErr
	}
	if acceptedErr != nil {
		return nil, nil, "", err
	}
	return conf, nil, fault, nil
}

// reread is load for a running server.
func (d *daemon) reread() (*config.Config, []string, error) {
	conf, found, err := config.Load(d.o.ConfigPath, d.o.Env)
	return conf, texts(found), err
}

func texts(found []config.Warning) []string {
	var s []string
	for _, w := range found {
		s = append(s, w.String())
	}
	return s
}

// accept keeps the files of a configuration that was taken.
func (d *daemon) accept(ctx context.Context, conf *config.Config) error {
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
	conf.Files = nil // a million names need not stay in memory
	return nil
}

// accepted is the last configuration that was taken.
func (d *daemon) accepted(ctx context.Context) (*config.Config, error) {
	value, err := d.store.Value(ctx, keyAccepted)
	if err != nil {
		return nil, fmt.Errorf("read the last accepted configuration: %w", err)
	}
	files := make(map[string][]byte)
	z, err := gzip.NewReader(bytes.NewReader(value))
	if err == nil {
		err = json.NewDecoder(z).Decode(&files)
	}
	if err != nil {
		return nil, fmt.Errorf("read the last accepted configuration: %w", err)
	}
	conf, _, err := config.LoadFiles(d.o.ConfigPath, d.o.Env, func(path string) ([]byte, error) {
		if content, ok := files[path]; ok {
			return content, nil
		}
		return nil, fmt.Errorf("%s: %w", path, fs.ErrNotExist)
	})
	return conf, err
}
