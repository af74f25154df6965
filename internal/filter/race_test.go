//go:build race

package filter

// The race detector makes everything some ten times slower.
func init() { slowdown = 20 }
