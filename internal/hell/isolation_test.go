package hell_test

import (
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/posthorn/posthorn/client"
	"github.com/posthorn/posthorn/internal/hell"
	"github.com/posthorn/posthorn/internal/tally"
)

// TestHealthyEndpointBesideDrippingOnes delivers to one endpoint while many
// others hold their connections as long as they can.
func TestHealthyEndpointBesideDrippingOnes(t *testing.T) {
	dripping, events := 200, 50
	if os.Getenv("POSTHORN_TORTURE") == "long" {
		dripping, events = 900, 500
	}
	p := startProcess(t)
	held := hell.Listen(t, nil, hell.Once(func(c net.Conn) {
		io.WriteString(c, "HTTP/1.1 200 OK\r\n")
		hell.Drip(c, "X: y\r\n", 100*time.Millisecond)
	}))
	var mu sync.Mutex
	arrived := map[string]time.Time{}
	answer := hell.Answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	healthy := hell.Listen(t, nil, func(r *hell.Receiver, c net.Conn) { answer(r, stamped{c, r, &mu, arrived}) })
	p.endpoints(t, dripping, held.URL(), "cases.updated")
	p.endpoints(t, 1, healthy.URL(), "cases.closed")
	p.publish(t, 1, "cases.updated")
	eventually(t, "all dripping endpoints hold a connection", func() bool { return held.OpenConns() >= dripping })
	published := map[string]time.Time{}
	for range events {
		began := time.Now()
		e, err := p.partner.Send(t.Context(), client.Event{Type: "cases.closed", Data: []byte(`{}`)})
		if err != nil {
			t.Fatal(err)
		}
		published[e.ID] = began
	}
	eventually(t, "all events arrived", func() bool { return len(healthy.IDs()) == events })
	mu.Lock()
	defer mu.Unlock()
	var took []time.Duration
	for id, at := range arrived {
		took = append(took, at.Sub(published[id]))
	}
	slices.Sort(took)
	t.Logf("beside %d dripping endpoints: median %v, slowest %v of %d", dripping, took[len(took)/2], took[len(took)-1], len(took))
	if slowest := took[len(took)-1]; len(took) != events || slowest > 3*time.Second {
		t.Errorf("%d events arrived, the slowest after %v", len(took), slowest)
	}
	tally.Count(t, "a healthy endpoint is served beside dripping ones", events)
}

// stamped notes when a request has been read: at the answer's write.
type stamped struct {
	net.Conn
	r       *hell.Receiver
	mu      *sync.Mutex
	arrived map[string]time.Time
}

func (s stamped) Write(b []byte) (int, error) {
	s.mu.Lock()
	for id := range s.r.IDs() {
		if _, ok := s.arrived[id]; !ok {
			s.arrived[id] = time.Now()
		}
	}
	s.mu.Unlock()
	return s.Conn.Write(b)
}
