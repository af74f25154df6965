//go:build !linux

package postgres

import "syscall"

// boundUnacknowledged does nothing where the system has no such bound.
func boundUnacknowledged(string, string, syscall.RawConn) error { return nil }
