//go:build !linux

package filter

import "time"

// cpu is how long fn takes.
func cpu(fn func()) time.Duration {
	began := time.Now()
	fn()
	return time.Since(began)
}
