package main

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/stspub/stspub/internal/config"
	"github.com/stspub/stspub/internal/store"
)

// backedUp is the result of backup.
type backedUp struct {
	File  string `json:"file"`
	Bytes int64  `json:"bytes"`
}

func newBackup() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Copy the store into a file, while stspub runs",
		Long: `backup writes a copy of the store (SQLite) as it stands now into a new file, which only its owner can read: private keys
are in it, sealed if those of the store are. stspub may run or not. The key of [store] and the configuration are not in the
copy; keep them elsewhere.`,
		Example: "  stspub backup /var/backups/stspub.db",
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			from, err := fileOf(path)
			if err == nil {
				err = store.BackupSQLite(cmd.Context(), from, args[0])
			}
			if err != nil {
				return err
			}
			info, err := os.Stat(args[0])
			if err != nil {
				return err
			}
			return say(cmd, backedUp{args[0], info.Size()}, "copied the store into %s: %d KB\n", args[0], info.Size()>>10)
		},
	}
	configFlag(cmd, &path)
	jsonFlag(cmd, "")
	return cmd
}

// restored is the result of restore.
type restored struct {
	Store  string `json:"store"`
	Before string `json:"before,omitempty"` // where what was there is kept; empty: nothing was
}

// keptBefore is where the store is kept that was at path before a restore; "": there was none.
func keptBefore(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	path += ".before"
	if _, err := os.Lstat(path); err != nil {
		return ""
	}
	return path
}

func newRestore() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Put a copy of the store in its place",
		Long: `restore checks a copy that backup made and puts it where the store is, while stspub does not run. What was there is kept
beside it under the same name with ".before". The next start compares the ids of the copy with DNS: those that DNS has and
the copy does not know are replaced by fresh ones, and nothing is deleted before somebody has looked, because what senders
hold since the copy was made is not in it.`,
		Example: "  stspub restore /var/backups/stspub.db",
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			to, err := fileOf(path)
			if err == nil {
				err = store.RestoreSQLite(cmd.Context(), to, args[0])
			}
			if err != nil {
				return err
			}
			before := keptBefore(to)
			if before == "" {
				return say(cmd, restored{Store: to}, "restored %s; nothing was there before\n", to)
			}
			return say(cmd, restored{to, before}, "restored %s; what was there before is %s\n", to, filepath.Base(before))
		},
	}
	configFlag(cmd, &path)
	jsonFlag(cmd, "")
	return cmd
}

// fileOf is where the store of the configuration at path is, which has to be SQLite.
func fileOf(path string) (string, error) {
	s, err := config.GlanceStore(path, os.Getenv)
	if err != nil {
		return "", err
	}
	if s.Postgres != "" {
		return "", errors.New("the store is in PostgreSQL: use its own pg_dump and pg_restore, or what your database service has for it")
	}
	return s.Path, nil
}
