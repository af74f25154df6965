package app

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/posthorn/posthorn/internal/tally"
)

// drip begins a request whose body does not come.
func (s *service) drip(t *testing.T, token string) net.Conn {
	t.Helper()
	c := s.dial(t)
	io.WriteString(c, head(token, "POST", "/events", "Content-Type: application/json\r\nContent-Length: 100\r\n")+"{")
	return c
}

// Whoever fills all connections with bodies that drip keeps nobody out: the party
// that has the most gives its place.
func TestDrippingBodiesKeepNobodyOut(t *testing.T) {
	const places = 32
	s, n := exposed(t, false, "POSTHORN_MAX_CONNECTIONS=32")
	hog, victim := s.token(t, "hog"), s.token(t, "victim")
	kept := &http.Client{Transport: &http.Transport{}, Timeout: 10 * time.Second} // one connection that the victim keeps
	ask := func() {
		t.Helper()
		r, err := http.NewRequest("POST", s.base+"/v2.3/webhooks/events", io.NopCloser(strings.NewReader(`{"type":"cases.closed","data":{}}`)))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+victim)
		r.Header.Set("Content-Type", "application/json")
		resp, err := kept.Do(r)
		if err != nil {
			t.Fatalf("the victim's kept connection was closed: %v", err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusAccepted {
			t.Fatalf("the victim is answered %d", resp.StatusCode)
		}
	}
	ask()
	for range 2 * places {
		s.drip(t, hog)
	}
	for range 50 {
		s.drip(t, hog)
		s.servedWithin(t, victim, 5*time.Second)
		ask()
	}
	open, _, refused := n.listener.figures()
	if open > places || refused != 0 {
		t.Errorf("%d connections are open, %d were refused", open, refused)
	}
	tally.Count(t, "whoever drips bodies on all connections keeps nobody out", 50)
}
