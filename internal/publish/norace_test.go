//go:build !race

package publish

const (
	simWorlds       = 1400
	simSharedWorlds = 100
)
