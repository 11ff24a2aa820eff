package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/daemon"
	"github.com/stspub/stspub/internal/store"
)

func newMigrate() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "migrate FROM [TO]",
		Short: "Move a store to another engine",
		Long: `migrate copies everything that a store holds into another one, which must be empty, and verifies the copy: row by row, and
that every secret in it opens. FROM and TO are written as [store] url is: "sqlite:PATH" or "postgres://USER@HOST:PORT/DATABASE".
Nothing may run on either of them. FROM stays as it is.

With --config, TO is the store of that configuration, which also has the password of PostgreSQL and the keys of both stores. Without
it the password is taken from PGPASSWORD, and the stores are not sealed.`,
		Example: `  stspub migrate sqlite:/var/lib/stspub/stspub.db --config new.toml
  stspub migrate sqlite:/var/lib/stspub/stspub.db postgres://stspub@127.0.0.1/stspub`,
		Args: usageArgs(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			from, to, err := migration(args, path)
			if err != nil {
				return err
			}
			tables, err := migrate(cmd.Context(), from, to, cmd.ErrOrStderr())
			if err != nil {
				return fmt.Errorf("migrate: %w", err)
			}
			return say(cmd, tables, "%d domains and %d certificates, with all that belongs to them, were copied and verified; "+
				"set [store] url to the new store\n", tables["domains"], tables["certificates"])
		},
	}
	cmd.Flags().StringVarP(&path, "config", "c", "", "configuration `FILE` with the new store")
	_ = cmd.MarkFlagFilename("config", "toml") // it is only for completion
	jsonFlag(cmd, ": the number of rows of each table")
	return cmd
}

// migration reads the arguments.
func migration(args []string, path string) (from, to config.Store, err error) {
	if (len(args) == 2) == (path != "") {
		return from, to, usageError{errors.New("migrate needs either TO or --config")}
	}
	if path != "" {
		conf, _, err := config.Load(path, os.Getenv)
		if err != nil {
			return from, to, err
		}
		to = conf.Store
	} else if to, err = storeOf(args[1]); err != nil {
		return from, to, err
	}
	if from, err = storeOf(args[0]); err != nil {
		return from, to, err
	}
	from.Keys = to.Keys
	if from.Postgres == "" {
		if _, err := os.Stat(from.Path); errors.Is(err, fs.ErrNotExist) { // it would be made
			return from, to, fmt.Errorf("there is no store at %q: name the one to copy", from.Path)
		}
	}
	return from, to, nil
}

// storeOf reads an URL.
func storeOf(url string) (config.Store, error) {
	if path, found := strings.CutPrefix(url, "sqlite:"); found && path != "" {
		return config.Store{Path: path}, nil
	}
	full, err := config.PostgresURL(url, "")
	if err != nil {
		return config.Store{}, usageError{fmt.Errorf("the URL of a store %w, or \"sqlite:PATH\"", err)}
	}
	return config.Store{Postgres: full}, nil
}

// migrate copies, and returns the number of rows of each table.
func migrate(ctx context.Context, from, to config.Store, w io.Writer) (map[string]int, error) {
	source, _, err := daemon.OpenStore(ctx, from)
	if err != nil {
		return nil, err
	}
	target, _, err := daemon.OpenStore(ctx, to)
	if err != nil {
		return nil, errors.Join(err, source.Close())
	}
	p := &copying{out: w, terminal: isTerminal(w), tables: make(map[string]int)}
	err = store.Copy(ctx, source, target, p.tell)
	p.end()
	return p.tables, errors.Join(err, source.Close(), target.Close())
}

// copying shows how far a copy is: on a terminal as it goes, elsewhere when a table is done.
type copying struct {
	out      io.Writer
	terminal bool
	doing    string
	rows     int
	tables   map[string]int // that were verified
}

func (p *copying) tell(doing string, rows int) {
	if doing != p.doing {
		p.end()
	}
	p.doing, p.rows = doing, rows
	if p.terminal {
		fmt.Fprintf(p.out, "\r%s: %d rows", doing, rows)
	}
	if table, found := strings.CutPrefix(doing, "verify "); found {
		p.tables[table] = rows
	}
}

// end is for the end of one thing.
func (p *copying) end() {
	switch {
	case p.doing == "":
	case p.terminal:
		fmt.Fprintln(p.out)
	default:
		fmt.Fprintf(p.out, "%s: %d rows\n", p.doing, p.rows)
	}
	p.doing = ""
}
