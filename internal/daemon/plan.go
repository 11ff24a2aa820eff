package daemon

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/publish"
)

// Plan says what a configuration would change: that of files, by path, with the configuration file at path, or without
// files that which a reload would read.
func (m manager) Plan(
	ctx context.Context, path string, files map[string][]byte, progress func(done, total int),
) (publish.Plan, error) {
	var conf *config.Config
	var warnings []string
	var err error
	if files == nil {
		conf, warnings, err = m.d.reread()
	} else {
		conf, warnings, err = m.d.inPlace(path, files)
	}
	if err != nil {
		return publish.Plan{}, fmt.Errorf("%w: %w", publish.ErrRefused, err)
	}
	p, err := m.Reconciler.Plan(ctx, conf, progress)
	p.Warnings = append(warnings, p.Warnings...)
	return p, err
}

// inPlace reads a configuration as if its file had been put in the place of the server's, and its lists of domains beside
// it: relative paths are the server's then. What it says of the file names it as the operator does.
func (d *daemon) inPlace(path string, files map[string][]byte) (*config.Config, []string, error) {
	placed := make(map[string][]byte, len(files))
	for name, content := range files {
		if name == path {
			name = d.o.ConfigPath
		} else if rel, err := filepath.Rel(filepath.Dir(path), name); err == nil && filepath.IsLocal(rel) {
			placed[filepath.Join(filepath.Dir(d.o.ConfigPath), rel)] = content
		}
		placed[name] = content // a list with an absolute path stays where it is
	}
	conf, found, err := config.LoadFiles(d.o.ConfigPath, d.o.Env, among(placed))
	for i := range found {
		if found[i].File == d.o.ConfigPath {
			found[i].File = path
		}
	}
	return conf, lines(found), err
}
