//go:build !race

package postgres_test

// slower is how much longer the race detector makes everything.
const slower = 1
