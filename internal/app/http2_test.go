package app

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/posthorn/posthorn/internal/share"
	"github.com/posthorn/posthorn/internal/tally"
)

// overTLS starts a node with a certificate, and makes clients that speak HTTP/2
// with it, each on connections of its own.
func overTLS(t *testing.T, more ...string) (s *service, n *node, client func() *http.Client) {
	t.Helper()
	cert, key := certificate(t, t.TempDir(), time.Now().Add(time.Hour))
	s, n = exposed(t, false, append(more, "POSTHORN_TLS_CERT="+cert, "POSTHORN_TLS_KEY="+key)...)
	s.base = strings.Replace(s.base, "http://", "https://", 1)
	return s, n, func() *http.Client {
		tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
		t.Cleanup(tr.CloseIdleConnections)
		return &http.Client{Transport: tr}
	}
}

// unfinished sends requests whose bodies do not end, and reports the statuses
// that are answered all the same.
func (s *service) unfinished(t *testing.T, ctx context.Context, c *http.Client, token string, requests int, statuses chan<- int) {
	t.Helper()
	if resp, err := c.Get(s.base + "/healthz"); err != nil { // all go by the connection that is there
		t.Fatal(err)
	} else {
		resp.Body.Close()
	}
	for range requests {
		body, w := io.Pipe()
		context.AfterFunc(ctx, func() { w.Close() })
		go io.WriteString(w, `{"type":`)
		r, err := http.NewRequestWithContext(ctx, "POST", s.base+"/v2.3/webhooks/events", body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		r.Header.Set("Content-Type", "application/json")
		go func() {
			if resp, err := c.Do(r); err == nil {
				statuses <- resp.StatusCode
				resp.Body.Close()
			}
		}()
	}
}

// A connection of HTTP/2 has few requests at a time, and a tenant its share of all
// requests, however few connections they come by.
func TestRequestsOverHTTP2AreSharedByTenant(t *testing.T) {
	const places, most, each, requests = 64, 48, 20, 80 // most: three quarters
	s, n, client := overTLS(t, fmt.Sprint("POSTHORN_MAX_CONNECTIONS=", places))
	hog, second, victim := s.token(t, "hog"), s.token(t, "hog"), s.token(t, "victim")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	statuses := make(chan int, requests)
	for i := range requests / each { // two connections of each token
		s.unfinished(t, ctx, client(), []string{hog, second}[i%2], each, statuses)
	}
	eventually(t, "all of them being read or refused", func() bool {
		held, _ := n.listener.requests.Taken()
		return int(held)+len(statuses) == requests
	})
	admin, err := OpenStore(t.Context(), s.path)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	tenant, err := admin.TenantByName(t.Context(), "hog")
	if err != nil {
		t.Fatal(err)
	}
	if held := n.listener.requests.Held(share.Tenant(tenant.ID)); held != most {
		t.Errorf("the tenant's two tokens have %d requests under way, want %d of %d", held, most, places)
	}
	for range len(statuses) {
		if got := <-statuses; got != http.StatusTooManyRequests {
			t.Errorf("one more is answered %d", got)
		}
	}
	for range 5 {
		r, err := http.NewRequest("POST", s.base+"/v2.3/webhooks/events", strings.NewReader(`{"type":"cases.closed","data":{}}`))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+victim)
		r.Header.Set("Content-Type", "application/json")
		resp, err := client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusAccepted || resp.ProtoMajor != 2 {
			t.Errorf("another tenant is answered %s by %s", resp.Status, resp.Proto)
		}
	}
	cancel()
	eventually(t, "all of it given back", func() bool {
		held, parties := n.listener.requests.Taken()
		return held == 0 && parties == 0
	})
	tally.Count(t, "requests in progress are shared by tenant, over HTTP/2 too", requests)
}

// A connection of HTTP/2 is told how many requests it may have at a time, and how
// much it may send before it is read.
func TestAConnectionOfHTTP2HasFewRequests(t *testing.T) {
	s, _, _ := overTLS(t)
	c, err := tls.Dial("tcp", strings.TrimPrefix(s.base, "https://"), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
	head := make([]byte, 9)
	if _, err := io.ReadFull(c, head); err != nil || head[3] != 4 {
		t.Fatalf("the first frame is %x, %v, want SETTINGS", head, err)
	}
	frame := make([]byte, int(head[1])<<8|int(head[2]))
	if _, err := io.ReadFull(c, frame); err != nil {
		t.Fatal(err)
	}
	got := map[uint16]uint32{}
	for ; len(frame) >= 6; frame = frame[6:] {
		got[binary.BigEndian.Uint16(frame)] = binary.BigEndian.Uint32(frame[2:])
	}
	const maxConcurrentStreams, initialWindowSize = 3, 4
	if got[maxConcurrentStreams] != 32 || got[initialWindowSize] != 256<<10 {
		t.Errorf("a connection may have %d requests, of which each may send %d bytes ahead", got[maxConcurrentStreams], got[initialWindowSize])
	}
}
