package app

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/posthorn/posthorn/internal/tally"
)

// Whoever announces large bodies and drips them gets no more than a tenant's share of
// memory, with however many tokens; others publish large batches meanwhile.
func TestAnnouncedBodiesTakeABoundedShare(t *testing.T) {
	s, n := exposed(t, false) // shortened time-outs would end on a busy machine what is held here
	token, other := s.token(t, "acme"), s.token(t, "other")
	tokens := []string{token, s.token(t, "acme"), s.token(t, "acme"), s.token(t, "acme"), s.token(t, "acme")}
	const length = 8 << 20
	const share = 64 << 20 / length // what a tenant may hold
	before := heap()
	for i := range share {
		c := s.dial(t)
		io.WriteString(c, head(tokens[i%len(tokens)], "POST", "/events/batch", fmt.Sprintf("Content-Type: application/json\r\nContent-Length: %d\r\n", length))+"{")
	}
	eventually(t, "all of them being read", func() bool {
		open, _, _ := n.listener.figures()
		return open == share && n.listener.idle() == 0
	})
	// A connection that is read may not have asked for its room yet.
	eventually(t, "the share to be taken", func() bool {
		c := s.dial(t)
		io.WriteString(c, head(token, "POST", "/events/batch", fmt.Sprintf("Content-Type: application/json\r\nContent-Length: %d\r\n", length))+"{")
		c.SetReadDeadline(time.Now().Add(time.Second))
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		return err == nil && resp.StatusCode == http.StatusTooManyRequests
	})
	refused := 0
	for i := range 50 {
		resp, body := s.exchange(t, head(tokens[i%len(tokens)], "POST", "/events/batch", fmt.Sprintf("Content-Type: application/json\r\nContent-Length: %d\r\n", length))+"{")
		if resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") == "" {
			t.Fatalf("one more is answered %d %s", resp.StatusCode, body)
		}
		refused++
	}
	if grown := heap() - before; grown > 100<<20 {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
	batch := `{"events":[{"type":"cases.closed","data":{"a":"` + strings.Repeat("x", 200<<10) + `"}}]}`
	if status, _, body := s.request(t, other, "POST", "/events/batch", batch, ""); status != http.StatusAccepted {
		t.Errorf("another tenant's batch is answered %d %s", status, body)
	}
	if status, _, body := s.request(t, token, "POST", "/events", `{"type":"cases.closed","data":{}}`, ""); status != http.StatusAccepted {
		t.Errorf("a small event of the same tenant is answered %d %s", status, body)
	}
	// Of unknown length they are counted as they come.
	c := s.dial(t)
	go func() {
		io.WriteString(c, head(token, "POST", "/events/batch", "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n"))
		for range length >> 12 {
			if _, err := io.WriteString(c, "1000\r\n"+strings.Repeat(" ", 0x1000)+"\r\n"); err != nil {
				return
			}
		}
	}()
	if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != http.StatusTooManyRequests {
		t.Errorf("one of unknown length is answered %v, %v", resp, err)
	}
	tally.Count(t, "memory held by request bodies is bounded and given back", share+refused+3)
}
