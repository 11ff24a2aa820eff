//go:build !race

package certs_test

// crowd is how many names a simulated year has.
const crowd = 20_000
