//go:build !linux && !darwin

package sqlite

import "errors"

// freeSpace is not asked here: the disk's own "full" is reported as it comes.
func freeSpace(string) (free, total uint64, err error) {
	return 0, 0, errors.ErrUnsupported
}
