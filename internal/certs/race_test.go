//go:build race

package certs_test

// crowd is how many names a simulated year has. With the race detector 20,000 take three minutes for each of four years, so
// there they are a fortieth, at a fortieth of the limits: go test -run TestYear ./internal/certs, without it, has them all.
const crowd = 500
