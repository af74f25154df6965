//go:build unix

package send

import (
	"net"
	"syscall"
)

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
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		// Nothing there and not closed. Data that nobody asked for counts as closed.
		open = err == syscall.EAGAIN
		return true
	})
	return err == nil && open
}
