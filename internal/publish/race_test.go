//go:build race

package publish

// How many worlds are simulated, each with its own faults. Nothing in one of them happens at the same time, and the race
// detector takes six times as long, so there are a fifth of them with it: go test -run UnderFaults ./internal/publish, without
// it, has them all.
const (
	simWorlds       = 280
	simSharedWorlds = 20
)
