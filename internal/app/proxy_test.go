package app

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/posthorn/posthorn/client"
	"github.com/posthorn/posthorn/internal/hell"
	"github.com/posthorn/posthorn/internal/tally"
)

// smokescreen is a CONNECT proxy that decides by itself where names lead.
type smokescreen struct {
	*hell.Receiver
	mu    sync.Mutex
	asked []*http.Request
}

func newSmokescreen(t *testing.T, routes map[string]string) *smokescreen {
	s := &smokescreen{}
	s.Receiver = hell.Listen(t, nil, func(_ *hell.Receiver, c net.Conn) {
		req, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		s.mu.Lock()
		s.asked = append(s.asked, req)
		s.mu.Unlock()
		to, ok := routes[req.Host]
		if !ok {
			io.WriteString(c, "HTTP/1.1 407 Request rejected by proxy\r\nX-Smokescreen-Error: 10.1.2.3 is private\r\nContent-Length: 8\r\n\r\n10.1.2.3")
			return
		}
		onward, err := net.Dial("tcp", to)
		if err != nil {
			io.WriteString(c, "HTTP/1.1 502 Bad Gateway\r\n\r\n")
			return
		}
		defer onward.Close()
		io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		done := make(chan struct{})
		go func() { io.Copy(onward, c); onward.Close(); close(done) }()
		io.Copy(c, onward)
		c.Close()
		<-done
	})
	return s
}

func (s *smokescreen) hosts() (list []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.asked {
		list = append(list, r.Host)
	}
	return list
}

// With --egress-proxy every attempt goes through it, names are left to it, an
// address in a url is judged before it is asked, what it refuses is the
// endpoint's fault and that it is down ours, and its password is not shown.
func TestEgressProxy(t *testing.T) {
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"} {
		t.Setenv(name, "http://127.0.0.1:1") // never read
	}
	t.Setenv("NO_PROXY", "*")
	r := hell.Listen(t, nil, hell.Answering(acknowledged))
	gone, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	proxy := newSmokescreen(t, map[string]string{"good.example.com:8080": r.Addr().String(), "gone.example.com:8080": gone.Addr().String()})
	asked := 0
	zone := func(string, int) ([]string, int) { asked++; return []string{"127.0.0.1"}, 0 }
	w := networkForTest(t, zone, "POSTHORN_ALLOW_HTTP=true", "POSTHORN_EGRESS_PROXY=http://user:geheim@"+proxy.Addr().String())
	classes := map[string]string{}
	for host, class := range map[string]string{"good": "ok", "private": "refused_by_policy", "gone": "connect"} {
		classes[w.endpoint(t, "http://"+host+".example.com:8080/hooks")] = class
	}
	for _, url := range []string{"http://127.0.0.1:8080/", "http://169.254.169.254/", "http://localhost:8080/", "http://" + w.listener.Addr().String() + "/"} {
		_, err := w.partner.CreateEndpoint(t.Context(), client.NewEndpoint{URL: url, Events: []string{"*"}})
		addressFree(t, url, refusal(t, url, err))
	}
	for id, d := range w.deliver(t, `{}`) {
		if len(d.Attempts) != 1 || d.Attempts[0].Class != classes[id] {
			t.Errorf("%+v, want %s", d.Attempts, classes[id])
			continue
		}
		addressFree(t, classes[id], d.Attempts[0].Explanation+" "+d.Attempts[0].ResponseBody)
	}
	if hosts := proxy.hosts(); len(hosts) != 3 || asked != 0 {
		t.Errorf("the proxy was asked for %v, the name server %d times", hosts, asked)
	}
	if conns, requests := r.Counts(); conns != 1 || requests != 1 || r.Last().Header.Get("Proxy-Authorization") != "" {
		t.Errorf("%d connections and %d requests, with the proxy's password %q", conns, requests, r.Last().Header.Get("Proxy-Authorization"))
	}
	for _, shown := range []string{w.cfg.String(), w.at.log.String()} {
		if strings.Contains(shown, "geheim") || strings.Contains(shown, "dXNlcjpnZWhlaW0") {
			t.Errorf("the proxy's password is shown: %s", shown)
		}
	}
	tally.Count(t, "--egress-proxy is asked for every attempt, and for no address that is not public", 8)
}

// A proxy that is down is our own fault: the delivery waits, the endpoint's
// schedule and health are not touched.
func TestEgressProxyThatIsDown(t *testing.T) {
	gone, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	w := networkForTest(t, nil, "POSTHORN_EGRESS_PROXY=http://user:geheim@"+gone.Addr().String())
	id := w.endpoint(t, "https://partner.example.com/hooks")
	event, err := w.partner.Send(t.Context(), client.Event{Type: "cases.closed", Data: []byte(`{}`)})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "an attempt", func() bool {
		for d, err := range w.partner.Deliveries(t.Context(), client.DeliveryFilter{Event: event.ID}) {
			if err == nil && len(d.Attempts) == 1 {
				if a := d.Attempts[0]; a.Class != "local" || d.State != "pending" || d.AttemptsMade != 0 {
					t.Errorf("%s, %s after %d attempts made", a.Class, d.State, d.AttemptsMade)
				}
				addressFree(t, "proxy down", d.Attempts[0].Explanation)
				return true
			}
		}
		return false
	})
	if h, err := w.partner.EndpointHealth(t.Context(), id); err != nil || h.Condition != "healthy" {
		t.Errorf("health %+v, %v", h, err)
	}
	if log := w.at.log.String(); strings.Contains(log, "geheim") {
		t.Errorf("the proxy's password is in the log: %s", log)
	}
}

// A proxy that says of one host that it cannot be reached is up: the delivery ends as
// failed, and the endpoint's health says so, though it is the only one.
func TestEgressProxyThatCannotReachOneHost(t *testing.T) {
	for _, answer := range []string{"503 Service Unavailable", "500 Internal Server Error", "404 Not Found", "530 Origin DNS Error"} {
		proxy := hell.Listen(t, nil, hell.Answering("HTTP/1.1 "+answer+"\r\nContent-Length: 0\r\n\r\n"))
		w := networkForTest(t, nil, "POSTHORN_EGRESS_PROXY=http://"+proxy.Addr().String())
		id := w.endpoint(t, "https://partner.example.com/hooks")
		for end, d := range w.deliver(t, `{}`) {
			if a := d.Attempts[0]; end != id || a.Class != "connect" || d.State != "failed" || d.AttemptsMade != 1 {
				t.Errorf("%s: %s, %s after %d attempts made", answer, a.Class, d.State, d.AttemptsMade)
			}
			addressFree(t, answer, d.Attempts[0].Explanation)
		}
		if h, err := w.partner.EndpointHealth(t.Context(), id); err != nil || h.Condition == "healthy" {
			t.Errorf("%s: health %+v, %v", answer, h, err)
		}
	}
}
