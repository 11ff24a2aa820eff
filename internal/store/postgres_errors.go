package store

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// Codes of PostgreSQL, by which what it says is told apart.
const (
	codeSerialization  = "40001"
	codeDeadlock       = "40P01"
	codeReadOnly       = "25006"
	codeIdle           = "25P03"
	codePassword       = "28P01"
	codeRefused        = "28000"
	codeNoDatabase     = "3D000"
	codePrivilege      = "42501"
	codeDiskFull       = "53100"
	codeConnections    = "53300"
	codeCanceled       = "57014"
	codeShutdown       = "57P01"
	codeCrash          = "57P02"
	codeNotNow         = "57P03"
	classConnection    = "08"
	classIO            = "58"
	classDataCorrupted = "XX"
)

// gaveUp says that the database rolled back for the sake of others.
func gaveUp(err error) bool {
	code := codeOf(err)
	return code == codeSerialization || code == codeDeadlock
}

func codeOf(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// errClosed says that a method was called after Close.
var errClosed = errors.New("the store is closed")

// finalError is one of what is not done again, since some of it was told.
type finalError struct{ error }

// Unwrap returns what went wrong.
func (e finalError) Unwrap() error { return e.error }

// isLost says that a connection was lost, or leads to a server that takes no writes.
func isLost(err error) bool {
	var final finalError
	if errors.As(err, &final) {
		return false
	}
	switch code := codeOf(err); {
	case code == codeShutdown, code == codeCrash, code == codeNotNow, code == codeReadOnly, code == codeIdle,
		strings.HasPrefix(code, classConnection):
		return true
	case code != "":
		return false
	}
	var network net.Error
	var connect *pgconn.ConnectError
	return errors.As(err, &network) || errors.As(err, &connect) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, net.ErrClosed) || errors.Is(err, pgconn.ErrConnClosed) || pgconn.SafeToRetry(err)
}

// explain says what to do about what PostgreSQL reports, by its code.
func (p *Postgres) explain(ctx context.Context, err error) error {
	if ended := ctx.Err(); ended != nil && !errors.Is(err, ended) {
		return troublef("%w (%w)", ended, err)
	}
	switch code := codeOf(err); {
	case errors.Is(err, ErrUnsure):
		return err
	case code == codePassword, code == codeRefused:
		return troublef("%q refuses its user: look at the user in [store] url, at password_file, and at the server's pg_hba.conf (%w)", p.where, err)
	case code == codeNoDatabase:
		return troublef("there is no database %q: create it, with the user of [store] url as its owner (%w)", p.where, err)
	case code == codePrivilege:
		return troublef("the user may not write to %q: make it the owner of the database (%w)", p.where, err)
	case code == codeDiskFull:
		return troublef("no space left for %q: make room on the disk of the server (%w)", p.where, err)
	case code == codeConnections:
		return troublef("%q takes no more connections: raise its max_connections, or set pool_max_conns in [store] url (%w)", p.where, err)
	case code == codeReadOnly:
		return troublef("%q takes no writes: name the primary server in [store] url (%w)", p.where, err)
	case code == codeCanceled:
		return troublef("%q took too long: look at its load, and at what holds its locks (%w)", p.where, err)
	case strings.HasPrefix(code, classIO), strings.HasPrefix(code, classDataCorrupted):
		return troublef("%q is in trouble: look at the log of its server (%w)", p.where, err)
	case isLost(err), ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
		return troublef("%q does not answer: look whether the server runs and can be reached (%w)", p.where, err)
	}
	return err
}
