package labtest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// The roles of every PostgreSQL server. Both may do everything; the guarded one needs the password.
const (
	postgresRole = "stspub"
	GuardedRole  = "guarded"
	GuardedWord  = "correct-horse/battery@staple"
)

// PostgreSQL is a running PostgreSQL server on a port of 127.0.0.1. Its methods may be called at the same time, but for
// Stop, Kill and Restart.
type PostgreSQL struct {
	Port int

	dir     string
	program string
	process *process
	made    atomic.Int32 // databases
}

// StartPostgreSQL starts the server that is installed, with an empty cluster of its own.
func StartPostgreSQL(t testing.TB) *PostgreSQL {
	t.Helper()
	dir, err := os.MkdirTemp("", "stspub-postgresql-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &PostgreSQL{dir: dir, program: findPostgreSQL(t, "postgres")}
	handOver(t, dir)
	// What is lost when the machine loses power is of no interest here; a server that is killed loses nothing by it.
	initdb := exec.CommandContext(t.Context(), findPostgreSQL(t, "initdb"), "--pgdata="+s.data(), "--username="+postgresRole,
		"--encoding=UTF8", "--locale=C.UTF-8", "--auth=trust", "--no-sync", "--no-instructions")
	initdb.Dir = dir
	initdb.SysProcAttr = &syscall.SysProcAttr{Credential: credential(t)}
	if out, err := initdb.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	hba := "host all " + GuardedRole + " 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n"
	if err := os.WriteFile(filepath.Join(s.data(), "pg_hba.conf"), []byte(hba), 0o644); err != nil {
		t.Fatal(err)
	}
	for range portTries {
		s.Port = freePort(t)
		if err = s.start(t); err == nil {
			break
		}
		if !portTaken.MatchString(s.Log()) {
			t.Fatalf("start postgres: %v\n%s", err, s.Log())
		}
	}
	if err != nil {
		t.Fatalf("start postgres: %v\n%s", err, s.Log())
	}
	t.Cleanup(func() { s.process.end(syscall.SIGINT) })
	s.exec(t, fmt.Sprintf(`CREATE ROLE %s SUPERUSER LOGIN PASSWORD '%s'`, GuardedRole, GuardedWord))
	return s
}

func findPostgreSQL(t testing.TB, program string) string {
	t.Helper()
	// Debian has them where several versions can stand side by side.
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/" + program)
	if err != nil {
		t.Fatal(err)
	}
	if len(found) > 0 {
		return found[len(found)-1]
	}
	path := find(program)
	if path == "" {
		t.Fatalf("%s is not installed: apt-get install postgresql", program)
	}
	return path
}

func (s *PostgreSQL) data() string { return filepath.Join(s.dir, "data") }

// Log is what the server said since it was started last.
func (s *PostgreSQL) Log() string {
	b, err := os.ReadFile(filepath.Join(s.dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func (s *PostgreSQL) start(t testing.TB) error {
	t.Helper()
	s.process = start(t, s.dir, s.program, []string{
		"-D", s.data(), "-p", strconv.Itoa(s.Port), "-h", "127.0.0.1", "-k", s.dir, "-c", "max_connections=300",
		"-c", "fsync=off", "-c", "full_page_writes=off", "-c", "jit=off",
	})
	err := s.process.await(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		c, err := pgx.Connect(ctx, s.URL("postgres"))
		if err != nil {
			return err
		}
		// Another server on this port would know nothing of this directory.
		var data string
		if err := c.QueryRow(ctx, "SHOW data_directory").Scan(&data); err != nil || data != s.data() {
			return errors.Join(fmt.Errorf("it is the server of %q: address in use", data), err, c.Close(ctx))
		}
		return c.Close(ctx)
	}, s.Log)
	if err != nil {
		s.process.end(syscall.SIGQUIT)
	}
	return err
}

// URL is that of a database; it need not exist.
func (s *PostgreSQL) URL(database string) string {
	return fmt.Sprintf("postgres://%s@127.0.0.1:%d/%s?sslmode=disable", postgresRole, s.Port, url.PathEscape(database))
}

// Database makes an empty database and returns its URL.
func (s *PostgreSQL) Database(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("test%d", s.made.Add(1))
	s.exec(t, "CREATE DATABASE "+name)
	return s.URL(name)
}

// exec runs a statement in the database that every server has.
func (s *PostgreSQL) exec(t testing.TB, statement string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	c, err := pgx.Connect(ctx, s.URL("postgres"))
	if err == nil {
		_, err = c.Exec(ctx, statement)
		err = errors.Join(err, c.Close(ctx))
	}
	if err != nil {
		t.Fatalf("%s: %v\n%s", statement, err, s.Log())
	}
}

// Stop ends all connections, and the server.
func (s *PostgreSQL) Stop() { s.process.end(syscall.SIGINT) }

// Kill ends the server in the middle of everything.
func (s *PostgreSQL) Kill() { s.process.end(syscall.SIGQUIT) }

// Restart starts it again on its port after Stop or Kill.
func (s *PostgreSQL) Restart(t testing.TB) {
	t.Helper()
	if err := s.start(t); err != nil {
		t.Fatalf("start postgres again: %v\n%s", err, s.Log())
	}
}
