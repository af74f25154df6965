package cli

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/posthorn/posthorn/internal/config"
	"github.com/posthorn/posthorn/internal/doctor"
)

// Doctor sends a token to a server that the settings name only if that is this machine,
// wherever the name leads by now; one that the user names gets it.
func TestDoctorSendsATokenToThisMachineOnly(t *testing.T) {
	var mu sync.Mutex
	tokens := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if r.Header.Get("Authorization") != "" {
			tokens++
		}
	}))
	defer server.Close()
	elsewhere := func(netip.Addr) bool { return false }
	for _, tt := range []struct {
		name string
		own  bool
		here func(netip.Addr) bool
		url  string
		sent bool
	}{
		{"this machine", true, isHere, server.URL, true},
		{"this machine by a name", true, isHere, strings.Replace(server.URL, "127.0.0.1", "localhost", 1), true},
		{"another machine", true, elsewhere, server.URL, false},
		{"another machine by a name", true, elsewhere, strings.Replace(server.URL, "127.0.0.1", "localhost", 1), false},
		{"another machine that the user names", false, elsewhere, server.URL, true},
	} {
		tokens = 0
		s := &serverCheck{own: tt.own, up: true, cfg: &config.Config{}, http: askingClient(nil), here: askingClient(onlyHere(tt.here))}
		s.server, s.token = tt.url, "pht_secret"
		found := s.tryToken(t.Context())
		if (tokens > 0) != tt.sent {
			t.Errorf("%s: the token was sent %d times", tt.name, tokens)
		}
		if skipped := found[0].State == doctor.Skipped; skipped == tt.sent || skipped && !strings.Contains(found[0].What, "posthorn doctor --server "+tt.url) {
			t.Errorf("%s: %+v", tt.name, found)
		}
	}
}

func TestWhatIsHere(t *testing.T) {
	for _, here := range []string{"127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"} {
		if !isHere(netip.MustParseAddr(here)) {
			t.Errorf("%s is not here", here)
		}
	}
	for _, there := range []string{"192.0.2.1", "169.254.169.254", "2001:db8::1", "0.0.0.0", "::", "224.0.0.1"} {
		if isHere(netip.MustParseAddr(there)) {
			t.Errorf("%s is here", there)
		}
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, own := range addrs {
		if p, err := netip.ParsePrefix(own.String()); err == nil && !isHere(p.Addr()) {
			t.Errorf("%s is not here", own)
		}
	}
	if _, err := askingClient(onlyHere(isHere)).Get("http://192.0.2.1/"); !errors.Is(err, errElsewhere) {
		t.Errorf("another machine is dialled: %v", err)
	}
}
