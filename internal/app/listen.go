package app

import (
	"errors"
	"fmt"
	"net"
	"syscall"
)

// listenOn opens a TCP listener and says in words what is wrong if it cannot.
func listenOn(addr, flag string) (net.Listener, error) {
	ln, err := net.Listen("tcp", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s is in use by another program; end it, or choose another address with %s", addr, flag)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("%s needs rights that this user does not have; choose a port from 1024 up with %s", addr, flag)
	case err != nil:
		return nil, fmt.Errorf("cannot listen on %s (%s): %w", addr, flag, err)
	}
	return ln, nil
}

// listenOrFree opens addr, or a free port of the same host when addr is taken,
// and reports which.
func listenOrFree(addr string) (ln net.Listener, free bool, err error) {
	ln, err = net.Listen("tcp", addr)
	if !errors.Is(err, syscall.EADDRINUSE) {
		return ln, false, err
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, false, err
	}
	ln, err = net.Listen("tcp", net.JoinHostPort(host, "0"))
	return ln, true, err
}
