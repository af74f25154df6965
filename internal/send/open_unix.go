//go:build unix

package send

import (
	"net"
	"syscall"
)

// openFiles is how many files the process may have open.
func openFiles() int {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return maxIdle
	}
	return int(min(uint64(l.Cur), 1<<30)) // some systems have other types
}

// socket is what is below a connection, to look into. It is made once for a
// connection, as it is looked into before each attempt.
type socket struct {
	raw    syscall.RawConn
	look   func(fd uintptr)
	silent bool // what the last look found
}

// newSocket returns nil for a connection that has no socket, as one in memory.
func newSocket(c net.Conn) *socket {
	below, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := below.SyscallConn()
	if err != nil {
		return nil
	}
	s := &socket{raw: raw}
	s.look = func(fd uintptr) {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		// Nothing there and not closed. Data that nobody asked for counts as closed.
		s.silent = err == syscall.EAGAIN
	}
	return s
}

// open looks into the socket without waiting. A receiver's close may have
// arrived without the runtime having told the connection's watcher yet; a
// request written then would be lost, and might not be repeated. What has no
// socket tells its watcher at once.
func (s *socket) open() bool {
	return s == nil || s.raw.Control(s.look) == nil && s.silent
}
