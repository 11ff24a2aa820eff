package main

import (
	"os"
	"time"
)

// The wall clock of this build is ahead of the machine's: what the runtime asks for the time is put away, and asked by what
// stands in its place. So the whole program sees one clock, with every library in it; durations stay as they are.

var (
	vdso  uintptr // what the runtime asked
	ahead int64   // seconds
)

// hook puts skewed in the place of what the runtime asks.
func hook()

func init() {
	d, err := time.ParseDuration(os.Getenv("STSPUB_E2E_AHEAD"))
	if err != nil {
		panic("STSPUB_E2E_AHEAD: " + err.Error())
	}
	ahead = int64(d / time.Second)
	hook()
}
