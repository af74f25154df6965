//go:build !unix

package send

import "net"

// stillOpen relies on the connection's watcher where sockets cannot be looked
// into.
func stillOpen(net.Conn) bool { return true }

func canLook(net.Conn) bool { return false }

func openFiles() int { return 2 * maxIdle }
