package app

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/posthorn/posthorn/internal/proof"
)

// asked sends the bytes of a request and returns the answer's status and body.
func asked(t *testing.T, addr, request string) (status int, body string) {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(time.Minute))
	io.WriteString(nc, request)
	resp, err := http.ReadResponse(bufio.NewReader(nc), nil)
	if err != nil {
		t.Fatalf("%q: %v", request, err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, string(b)
}

// A page of another site, whose name leads to this machine, reads nothing of what
// listens on loopback; nor does it get a page from a service that others reach.
func TestOnlyOurOwnHostsAreAnswered(t *testing.T) {
	w := networkForTest(t, nil, "POSTHORN_PUBLIC_URL=https://hooks.example.com,http://intern.example:8420", "POSTHORN_PPROF=true")
	in := newInbox(io.Discard, time.Now)
	if err := in.listen("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	go in.serve()
	t.Cleanup(func() { in.server.Close() })
	_, port, _ := net.SplitHostPort(w.listener.Addr().String())
	for _, at := range []struct{ name, addr, path, public string }{
		{"API", w.listener.Addr().String(), "/v2.3/webhooks/endpoints", "hooks.example.com"},
		{"pages", w.listener.Addr().String(), "/docs", "INTERN.example:8420"},
		{"probes", w.listener.Addr().String(), "/healthz", "hooks.example.com."},
		{"metrics", w.opsLn.Addr().String(), "/metrics", "hooks.example.com"},
		{"profiles", w.opsLn.Addr().String(), "/debug/pprof/", "intern.example"},
		{"inbox", in.addr(), "/inbox", ""},
	} {
		own := []string{"localhost:" + port, "LocalHost", "127.0.0.1:" + port, "[::1]:1", "10.1.2.3"}
		if at.public != "" {
			own = append(own, at.public)
		}
		for _, host := range own {
			if status, body := asked(t, at.addr, fmt.Sprintf("GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", at.path, host)); status == 421 {
				t.Errorf("%s by %s: %d %.200s", at.name, host, status, body)
			}
		}
		for _, request := range []string{
			"GET %s HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
			"GET %s HTTP/1.1\r\nHost: localhost.evil.example:80\r\nConnection: close\r\n\r\n",
			"GET %s HTTP/1.1\r\nHost: 127.0.0.1.nip.io\r\nConnection: close\r\n\r\n",
			"GET http://evil.example%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
			"POST %s HTTP/1.1\r\nHost: hooks.example.com.evil.example\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
			"OPTIONS %s HTTP/1.0\r\nHost: evil.localhost\r\n\r\n",
		} {
			if status, body := asked(t, at.addr, fmt.Sprintf(request, at.path)); status != 421 || !strings.Contains(body, "--public-url") {
				t.Errorf("%s by %q: %d %.200s", at.name, request, status, body)
			}
		}
		if status, _ := asked(t, at.addr, "GET "+at.path+" HTTP/1.0\r\n\r\n"); status == 421 {
			t.Errorf("%s without a host: %d", at.name, status)
		}
	}
}

// Who listens for others is called by whatever name leads there, but pages are not.
func TestAServiceForOthersIsCalledByAnyHost(t *testing.T) {
	w := networkForTest(t, nil, "POSTHORN_LISTEN=0.0.0.0:0", "POSTHORN_OPS_LISTEN=0.0.0.0:0")
	_, port, _ := net.SplitHostPort(w.listener.Addr().String())
	_, ops, _ := net.SplitHostPort(w.opsLn.Addr().String())
	for address, want := range map[string]int{port + "/v2.3/webhooks/endpoints": 401, port + "/readyz": 200, ops + "/metrics": 200, port + "/": 421, port + "/docs": 421} {
		at, path, _ := strings.Cut(address, "/")
		if status, body := asked(t, "127.0.0.1:"+at, "GET /"+path+" HTTP/1.1\r\nHost: hooks.internal.example\r\nConnection: close\r\n\r\n"); status != want {
			t.Errorf("%s: %d %.200s, want %d", path, status, body, want)
		}
	}
}

// No page of another site has dev's inbox fail, and nothing that it prints steers
// the terminal.
func TestDevsInboxIsForThisMachinesPrograms(t *testing.T) {
	var out proof.Output
	in := newInbox(&out, time.Now)
	if err := in.listen("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	go in.serve()
	t.Cleanup(func() { in.server.Close() })
	post := func(path, headers string) int {
		status, _ := asked(t, in.addr(), "POST "+path+" HTTP/1.1\r\nHost: localhost\r\n"+headers+"Content-Length: 0\r\nConnection: close\r\n\r\n")
		return status
	}
	for _, headers := range []string{
		"Sec-Fetch-Site: cross-site\r\n", "Sec-Fetch-Site: same-site\r\n", "Origin: https://evil.example\r\n", "Origin: null\r\n",
		"Origin: http://localhost:1\r\n", "Sec-Fetch-Site: cross-site\r\nContent-Type: text/plain\r\n",
	} {
		for _, path := range []string{"/fail?for=1h&status=500", "/inbox"} {
			if status := post(path, headers); status != http.StatusForbidden {
				t.Errorf("%s with %q: %d", path, headers, status)
			}
		}
	}
	if !in.failUntil.IsZero() || out.String() != "" {
		t.Errorf("it fails until %v, and prints %q", in.failUntil, out.String())
	}
	if status := post("/fail?for=1h&status=500", ""); status != 200 {
		t.Errorf("a program of this machine: %d", status)
	}
	for _, header := range []string{"posthorn-attempt", "posthorn-event-type", "webhook-id", "webhook-signature", "webhook-timestamp"} {
		post("/inbox", header+": a\u009b2J\u202eb\x9b"+strings.Repeat("x", 3000)+"\r\n")
	}
	printed := out.String()
	if strings.ContainsAny(printed, "\u009b\u202e\x1b\r") || !utf8.ValidString(printed) || !strings.Contains(printed, "a\ufffd2J\ufffdb") || len(printed) > 5000 {
		t.Errorf("it prints %q", printed)
	}
}
