//go:build race

package filter

// The race detector slows a filter more than it slows the yardstick.
func init() { slowdown = 4 }
