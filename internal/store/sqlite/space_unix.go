//go:build linux || darwin

package sqlite

import "syscall"

// freeSpace asks the system for what an ordinary user may still write.
func freeSpace(path string) (free, total uint64, err error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(path, &s); err != nil {
		return 0, 0, err
	}
	size := uint64(s.Bsize)
	return s.Bavail * size, s.Blocks * size, nil
}
