package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// Problem is one mistake and where it stands. It never holds the value of a secret.
type Problem struct {
	File string
	Line int    // from 1
	Key  string // the key with its table, as in "mxset.eu.max_age"; empty in a domains file
	Text string // what is wrong, and what would be right
}

// Error returns "file:line: key: text".
func (p Problem) Error() string {
	if p.Key == "" {
		return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Text)
	}
	return fmt.Sprintf("%s:%d: %s: %s", p.File, p.Line, p.Key, p.Text)
}

// Warning is something that works and that an operator should know of.
type Warning Problem

// String returns "file:line: key: text".
func (w Warning) String() string { return Problem(w).Error() }

// findings collects problems and warnings in any order and gives them back in the order of the file.
type findings struct {
	file     string
	problems []finding
	warnings []finding
	hidden   map[spot]bool
}

// spot is a key of the table at a line.
type spot struct {
	line int
	key  string
}

type finding struct {
	Problem
	anchor int // line of the configuration file that leads there
}

func (f *findings) problem(line int, key, format string, args ...any) {
	if p := f.here(line, key, format, args...); !f.hidden[spot{p.Line, key}] {
		f.problems = append(f.problems, p)
	}
}

// hide keeps what follows from an earlier problem from being told besides: that a key of the table at a line is missing.
func (f *findings) hide(line int, key string) {
	if f.hidden == nil {
		f.hidden = make(map[spot]bool)
	}
	f.hidden[spot{line, key}] = true
}

func (f *findings) warn(line int, key, format string, args ...any) {
	f.warnings = append(f.warnings, f.here(line, key, format, args...))
}

func (f *findings) here(line int, key, format string, args ...any) finding {
	line = max(line, 1) // a table that is not there is missed at the top
	return finding{Problem{f.file, line, key, fmt.Sprintf(format, args...)}, line}
}

// err returns all problems joined, each a [Problem], or nil.
func (f *findings) err() error {
	var errs []error
	for _, p := range sorted(f.problems) {
		errs = append(errs, p.Problem)
	}
	return errors.Join(errs...)
}

func (f *findings) sortedWarnings() []Warning {
	var ws []Warning
	for _, w := range sorted(f.warnings) {
		ws = append(ws, Warning(w.Problem))
	}
	return ws
}

func sorted(fs []finding) []finding {
	slices.SortStableFunc(fs, func(a, b finding) int { return cmp.Compare(a.anchor, b.anchor) })
	return fs
}
