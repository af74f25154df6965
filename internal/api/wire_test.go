package api

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// raw sends bytes to the API on a real connection and returns all that comes
// back until it is closed.
func (w *world) raw(request string) string {
	w.t.Helper()
	server := httptest.NewServer(w.handler)
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		w.t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil && len(answer) == 0 {
		w.t.Fatal(err)
	}
	return string(answer)
}

func (w *world) head(who, line string) string {
	return line + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer " + w.tokens[who] + "\r\n"
}

// A 204 ends after its headers: bytes behind it would be taken for the next
// answer.
func TestNothingFollowsA204(t *testing.T) {
	w := newWorld(t)
	id := w.endpoint("acme", validEndpoint)
	answer := w.raw(w.head("acme", "DELETE "+Base+"/endpoints/"+id) + "\r\n")
	head, body, _ := strings.Cut(answer, "\r\n\r\n")
	if !strings.HasPrefix(head, "HTTP/1.1 204 ") || body != "" || strings.Contains(head, "Content-") && !strings.Contains(head, "X-Content-") {
		t.Errorf("%q", answer)
	}
	for _, name := range []string{"Content-Type:", "Content-Length:", "Transfer-Encoding:"} {
		if strings.Contains(head, "\n"+name) {
			t.Errorf("%s on a 204: %q", name, head)
		}
	}
}

func TestHeadHasTheHeadersOfGet(t *testing.T) {
	w := newWorld(t)
	id := w.endpoint("acme", validEndpoint)
	answer := w.raw(w.head("acme", "HEAD "+Base+"/endpoints/"+id) + "\r\n")
	head, body, _ := strings.Cut(answer, "\r\n\r\n")
	length := len(w.do("acme", "GET", "/endpoints/"+id, "").body)
	if body != "" || !strings.Contains(head, fmt.Sprintf("\r\nContent-Length: %d", length)) || !strings.Contains(head, "\r\nEtag: \"1\"") {
		t.Errorf("%q", answer)
	}
}

// A client that waits for 100-continue is refused before it sends the body.
func TestARefusedClientKeepsItsBody(t *testing.T) {
	w := newWorld(t)
	w.tokens["bad"] = "pht_nonsense"
	for who, status := range map[string]string{"bad": "401", "acme-read": "403", "acme": "413"} {
		answer := w.raw(w.head(who, "POST "+Base+"/events") + "Content-Type: application/json\r\nContent-Length: 10000000\r\nExpect: 100-continue\r\n\r\n")
		if !strings.HasPrefix(answer, "HTTP/1.1 "+status) {
			t.Errorf("%s: %.60q, want %s at once", who, answer, status)
		}
	}
}

func TestABodyOfUnknownLengthIsBounded(t *testing.T) {
	w := newWorld(t)
	server := httptest.NewServer(w.handler)
	defer server.Close()
	r, err := http.NewRequestWithContext(t.Context(), "POST", server.URL+Base+"/endpoints", io.MultiReader(strings.NewReader(strings.Repeat(" ", smallBody+1)), bufio.NewReader(strings.NewReader("x"))))
	if err != nil {
		t.Fatal(err)
	}
	r.ContentLength = -1
	r.Header.Set("Authorization", "Bearer "+w.tokens["acme"])
	r.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != 413 {
		t.Errorf("%s", answer.Status)
	}
}
