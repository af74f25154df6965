//go:build unix

package send

import (
	"net"
	"syscall"
)

// canLook reports whether stillOpen can tell anything.
func canLook(c net.Conn) bool {
	_, ok := c.(syscall.Conn)
	return ok
}

// openFiles is how many files the process may have open.
func openFiles() int {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return maxIdle
	}
	return int(min(uint64(l.Cur), 1<<30)) // some systems have other types
}

// stillOpen looks into the socket without waiting. A receiver's close may have
// arrived without the runtime having told the connection's watcher yet; a
// request written then would be lost, and might not be repeated.
func stillOpen(c net.Conn) bool {
	socket, ok := c.(syscall.Conn)
	if !ok {
		return true // a connection in memory tells its watcher at once
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return false
	}
	open := false
	err = raw.Control(func(fd uintptr) {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		// Nothing there and not closed. Data that nobody asked for counts as closed.
		open = err == syscall.EAGAIN
	})
	return err == nil && open
}
