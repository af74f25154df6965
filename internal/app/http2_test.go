package app

import (
	"context"
	"crypto/tls"
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

// unfinished sends requests whose bodies do not end, and returns the statuses that
// are answered all the same.
func (s *service) unfinished(t *testing.T, ctx context.Context, c *http.Client, token string, requests int) <-chan int {
	t.Helper()
	statuses := make(chan int, requests)
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
	return statuses
}

// A connection of HTTP/2 has few requests at a time, and a tenant its share of all
// requests, however few connections they come by.
func TestRequestsOverHTTP2AreSharedByTenant(t *testing.T) {
	const places, most = 64, 48 // three quarters
	s, n, client := overTLS(t, fmt.Sprint("POSTHORN_MAX_CONNECTIONS=", places))
	hog, second, victim := s.token(t, "hog"), s.token(t, "hog"), s.token(t, "victim")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	statuses := s.unfinished(t, ctx, client(), hog, 40)
	more := s.unfinished(t, ctx, client(), second, 40)
	eventually(t, "all of them being read or refused", func() bool {
		held, _ := n.listener.requests.Taken()
		return int(held)+len(statuses)+len(more) == 80
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
	if open, _, _ := n.listener.figures(); open*streamsOfConnection < most || open < 2 {
		t.Errorf("%d requests come by %d connections", most, open)
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
	tally.Count(t, "requests in progress are shared by tenant, over HTTP/2 too", 80)
}

// A connection of HTTP/2 is told how many requests it may have at a time.
func TestAConnectionOfHTTP2HasFewRequests(t *testing.T) {
	s, n, client := overTLS(t)
	token := s.token(t, "acme")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	const requests = 100
	s.unfinished(t, ctx, client(), token, requests)
	eventually(t, "all of them being read", func() bool {
		held, _ := n.listener.requests.Taken()
		return held == requests
	})
	if open, _, _ := n.listener.figures(); open*streamsOfConnection < requests {
		t.Errorf("%d requests came by %d connections, want %d a connection at most", requests, open, streamsOfConnection)
	}
}
