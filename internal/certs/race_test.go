//go:build race

package certs_test

// crowd is how many names a simulated year has. The race detector slows it down tenfold and more.
const crowd = 2_000
