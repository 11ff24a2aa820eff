package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// BackupSQLite writes a copy of the store in the file at path, as it stands at one moment, into a new file at to (mode
// 0600), which must not be there. The store may be in use, by this process or another, which goes on reading and writing.
// What is sealed in it is sealed in the copy.
func BackupSQLite(ctx context.Context, path, to string) error {
	if err := backupSQLite(ctx, path, to); err != nil {
		return fmt.Errorf("back up store %q to %q: %w", path, to, err)
	}
	return nil
}

func backupSQLite(ctx context.Context, path, to string) (err error) {
	if _, err := os.Stat(path); err != nil {
		return adviseFile(path, err)
	}
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) // else SQLite makes it, for all to read
	if err != nil {
		return adviseFile(to, err)
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = errors.Join(err, os.Remove(to))
		}
	}()
	db, err := openPool(path, "mode=rw", 1)
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, `VACUUM INTO ?`, to)
	if err = errors.Join(err, db.Close()); err != nil {
		return err
	}
	return errors.Join(f.Sync(), syncDir(to))
}

// RestoreSQLite puts a copy that [BackupSQLite] made in the place of the store at path, which nobody may have open (else
// the error wraps [ErrLocked]). A store that is there goes to path+".before", with what SQLite keeps beside it, and is
// never deleted; if there is a ".before" already nothing is done. The copy stays, and is checked first. When root does it, the
// store is given to whom its folder belongs.
func RestoreSQLite(ctx context.Context, path, from string) error {
	if err := restoreSQLite(ctx, path, from); err != nil {
		return fmt.Errorf("restore store %q from %q: %w", path, from, err)
	}
	return nil
}

func restoreSQLite(ctx context.Context, path, from string) (err error) {
	if err := checkSQLite(ctx, from); err != nil {
		return err
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return adviseFile(path, err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	const before = ".before"
	if _, err := os.Lstat(path + before); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is there, from an earlier restore: move it away first", path+before)
	}
	part := path + ".restored"
	err = copyFile(part, from)
	if err == nil {
		err = giveToOwner(part, path+".lock")
	}
	if err != nil {
		return errors.Join(err, os.Remove(part))
	}
	// A log that is left beside another database than its own would be taken for that one's.
	for _, kind := range []string{"-wal", "-shm", ""} {
		if err := os.Rename(path+kind, path+before+kind); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return errors.Join(err, os.Remove(part))
		}
	}
	if err := os.Rename(part, path); err != nil {
		return err
	}
	return syncDir(path)
}

// checkSQLite says what is wrong with a copy.
func checkSQLite(ctx context.Context, path string) (err error) {
	if _, err := os.Stat(path); err != nil {
		return adviseFile(path, err)
	}
	db, err := openPool(path, "mode=ro&immutable=1", 1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	rows, err := db.QueryContext(ctx, `PRAGMA integrity_check(3)`)
	if err != nil {
		return err
	}
	defer rows.Close()
	var found []string
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			return err
		}
		found = append(found, line)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if strings.Join(found, "") != "ok" {
		return fmt.Errorf("it is damaged: %s", strings.Join(found, "; "))
	}
	var ours int
	err = db.QueryRowContext(ctx, `SELECT count(*) FROM sqlite_schema WHERE name IN ('migrations', 'domains')`).Scan(&ours)
	if err == nil && ours != 2 {
		err = errors.New("it is no copy of a store")
	}
	return err
}

// copyFile makes a file of its own, synced.
func copyFile(to, from string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err == nil {
		err = out.Sync()
	}
	return errors.Join(err, out.Close())
}

// giveToOwner gives files to whom their folder belongs, if root made them: stspub may run as another user, who has to open
// them.
func giveToOwner(paths ...string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	for _, path := range paths {
		info, err := os.Stat(filepath.Dir(path))
		if err != nil {
			return err
		}
		if dir, ok := info.Sys().(*syscall.Stat_t); ok {
			if err := os.Chown(path, int(dir.Uid), int(dir.Gid)); err != nil {
				return err
			}
		}
	}
	return nil
}

// syncDir has what was done to a file's name survive a crash of the machine.
func syncDir(path string) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
