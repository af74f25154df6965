package hell_test

import (
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/posthorn/posthorn/client"
	"github.com/posthorn/posthorn/internal/hell"
	"github.com/posthorn/posthorn/internal/tally"
)

// TestHealthyEndpointBesideDrippingOnes delivers to one endpoint while others
// hold their connections as long as they can: all that they can get, for there are
// more of them than there may be attempts. What is kept free is for endpoints
// whose last attempt succeeded; one that was never tried waits like the others.
func TestHealthyEndpointBesideDrippingOnes(t *testing.T) {
	dripping, events := 200, 50
	if os.Getenv("POSTHORN_TORTURE") == "long" {
		dripping, events = 900, 500
	}
	inFlight := dripping / 2
	p := startProcess(t, "POSTHORN_MAX_IN_FLIGHT="+strconv.Itoa(inFlight))
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
	p.publish(t, 1, "cases.closed")
	eventually(t, "the first success", func() bool { return len(healthy.IDs()) == 1 })
	p.publish(t, 1, "cases.updated")
	eventually(t, "dripping endpoints hold what they can get", func() bool { return held.OpenConns() >= inFlight/2 })
	published := map[string]time.Time{}
	for range events {
		began := time.Now()
		e, err := p.partner.Send(t.Context(), client.Event{Type: "cases.closed", Data: []byte(`{}`)})
		if err != nil {
			t.Fatal(err)
		}
		published[e.ID] = began
	}
	eventually(t, "all events arrived", func() bool { return len(healthy.IDs()) == events+1 })
	mu.Lock()
	defer mu.Unlock()
	var took []time.Duration
	for id, at := range arrived {
		if _, ok := published[id]; !ok {
			continue
		}
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
