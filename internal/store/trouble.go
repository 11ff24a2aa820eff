package store

import "fmt"

// Trouble is an error of the database itself. Its words name the database, its server or its file, and are the operator's.
type Trouble struct{ err error }

// Error says what is wrong, and what to do.
func (t *Trouble) Error() string { return t.err.Error() }

// Unwrap returns the cause.
func (t *Trouble) Unwrap() error { return t.err }

func troublef(format string, args ...any) error { return &Trouble{fmt.Errorf(format, args...)} }
