package send_test

import (
	"bufio"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/hell"
	"github.com/posthorn/posthorn/internal/send"
)

// connectProxy opens tunnels to the receiver whatever it is asked for.
func connectProxy(t *testing.T, to *receiver, asked chan<- *http.Request) *receiver {
	return listen(t, nil, func(_ *receiver, c net.Conn) {
		req, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		asked <- req
		onward, err := net.Dial("tcp", to.Addr().String())
		if err != nil {
			t.Error(err)
			return
		}
		defer onward.Close()
		io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n")
		done := make(chan struct{})
		go func() { io.Copy(onward, c); onward.Close(); close(done) }()
		io.Copy(c, onward)
		c.Close()
		<-done
	})
}

func throughProxy(t *testing.T, u string, ca *hell.Authority) *send.Client {
	return newClient(t, func(c *send.Config) {
		proxy, err := url.Parse(u)
		if err != nil {
			t.Fatal(err)
		}
		c.Proxy, c.AllowPrivate, c.CAs = proxy, nil, ca.Pool
	})
}

// Every attempt goes through the proxy, plain http too; names are left to it.
func TestProxy(t *testing.T) {
	ca := newAuthority(t)
	for _, tt := range []struct {
		to  *receiver
		url string
		ask string
	}{
		{listen(t, nil, answering(accepted)), "http://receiver.example/hooks", "receiver.example:80"},
		{listen(t, ca.Server(t, nil), answering(accepted)), "https://receiver.example/hooks", "receiver.example:443"},
	} {
		asked := make(chan *http.Request, 4)
		proxy := connectProxy(t, tt.to, asked)
		c := throughProxy(t, "http://user:pa%3Ass@"+proxy.Addr().String(), ca)
		for range 2 {
			if a := mustSend(t, c, request(tt.url)); !a.Succeeded() {
				t.Fatalf("%s: %s", tt.url, a.Explain())
			}
		}
		req := <-asked
		if req.Method != "CONNECT" || req.Host != tt.ask {
			t.Errorf("the proxy was asked to %s %s, want CONNECT %s", req.Method, req.Host, tt.ask)
		}
		if got, want := req.Header.Get("Proxy-Authorization"), "Basic "+base64.StdEncoding.EncodeToString([]byte("user:pa:ss")); got != want {
			t.Errorf("Proxy-Authorization %q", got)
		}
		if tt.to.Last().Header.Get("Proxy-Authorization") != "" {
			t.Error("the receiver was given the proxy's password")
		}
		if len(asked) != 0 {
			t.Error("the tunnel was not kept")
		}
		c.Close()
	}
}

func TestProxyJudgesLiterals(t *testing.T) {
	asked := make(chan *http.Request, 16)
	proxy := connectProxy(t, listen(t, nil, answering(accepted)), asked)
	c := throughProxy(t, "http://"+proxy.Addr().String(), newAuthority(t))
	for _, u := range []string{"http://127.0.0.1/", "http://169.254.169.254/", "https://[::1]/", "http://user@receiver.example/"} {
		if a := mustSend(t, c, request(u)); a.Class != posthorn.ClassRefused {
			t.Errorf("%s: class %v", u, a.Class)
		}
	}
	if conns, _ := proxy.Counts(); conns != 0 {
		t.Errorf("the proxy was dialled %d times", conns)
	}
}

// Whose fault it is: what the proxy says of the receiver is the receiver's,
// the rest is ours.
func TestProxyFaults(t *testing.T) {
	for _, tt := range []struct {
		name   string
		answer string
		class  posthorn.Class
	}{
		{"smokescreen refuses", "HTTP/1.1 407 Request rejected by proxy\r\nX-Smokescreen-Error: 10.0.0.1 is private\r\n\r\n", posthorn.ClassRefused},
		{"403", "HTTP/1.1 403 Forbidden\r\n\r\n", posthorn.ClassRefused},
		{"wants a password", "HTTP/1.1 407 Auth\r\nProxy-Authenticate: Basic\r\n\r\n", posthorn.ClassLocal},
		{"cannot reach", "HTTP/1.1 502 Bad Gateway\r\n\r\n", posthorn.ClassConnect},
		{"in time", "HTTP/1.1 504 Timeout\r\n\r\n", posthorn.ClassTimeout},
		{"cannot reach, says Squid", "HTTP/1.1 503 Service Unavailable\r\nX-Squid-Error: ERR_CONNECT_FAIL 111\r\n\r\n", posthorn.ClassConnect},
		{"broken", "HTTP/1.1 500 Oops\r\n\r\n", posthorn.ClassConnect},
		{"does not know it", "HTTP/1.1 404 Not Found\r\n\r\n", posthorn.ClassConnect},
		{"does not make tunnels", "HTTP/1.1 405 Method Not Allowed\r\n\r\n", posthorn.ClassConnect},
		{"too many", "HTTP/1.1 429 Too Many Requests\r\n\r\n", posthorn.ClassConnect},
		{"redirects", "HTTP/1.1 302 Found\r\nLocation: https://login.example/\r\n\r\n", posthorn.ClassConnect},
		{"another status", "HTTP/1.1 599 Hm\r\n\r\n", posthorn.ClassConnect},
		{"odd headers", "HTTP/1.1 503 Busy\r\nContent-Length:\r\nX\r\n\r\n", posthorn.ClassConnect},
		{"not a proxy", "SSH-2.0-x\r\n", posthorn.ClassLocal},
		{"closes", "", posthorn.ClassLocal},
	} {
		proxy := listen(t, nil, func(_ *receiver, c net.Conn) {
			http.ReadRequest(bufio.NewReader(c))
			io.WriteString(c, tt.answer)
		})
		c := throughProxy(t, "http://"+proxy.Addr().String(), newAuthority(t))
		a := mustSend(t, c, request("https://receiver.example/"))
		if a.Class != tt.class {
			t.Errorf("%s: class %v, want %v", tt.name, a.Class, tt.class)
		}
		if strings.Contains(a.Explain(), "10.0.0.1") {
			t.Errorf("%s: the explanation holds an address", tt.name)
		}
	}

	silent := listen(t, nil, func(_ *receiver, c net.Conn) { stall(c) })
	req := request("https://receiver.example/")
	req.Timeout = 300 * time.Millisecond
	if a := mustSend(t, throughProxy(t, "http://"+silent.Addr().String(), newAuthority(t)), req); a.Class != posthorn.ClassTimeout {
		t.Errorf("silent: class %v", a.Class)
	}
	silent.Close()
	if a := mustSend(t, throughProxy(t, "http://"+silent.Addr().String(), newAuthority(t)), req); a.Class != posthorn.ClassLocal {
		t.Errorf("down: class %v", a.Class)
	}
	for _, bad := range []string{"socks5://x:1", "http://", "http://x/path", "http://x?q", "x"} {
		u, err := url.Parse(bad)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := send.New(send.Config{Proxy: u}); err == nil {
			t.Errorf("proxy %s is accepted", bad)
		}
	}
}

// What a proxy answers to all destinations is our own side's fault; what it answers to
// some is theirs, be they three.
func TestProxyFaultsOfAll(t *testing.T) {
	for _, tt := range []struct{ name, answer string }{
		{"503", "HTTP/1.1 503 Busy\r\n\r\n"}, {"500", "HTTP/1.1 500 Oops\r\n\r\n"}, {"502", "HTTP/1.1 502 Bad\r\n\r\n"},
		{"504", "HTTP/1.1 504 Late\r\n\r\n"}, {"breaks off", ""},
	} {
		receiver := listen(t, nil, answering(accepted))
		proxy := listen(t, nil, func(_ *hell.Receiver, c net.Conn) {
			req, err := http.ReadRequest(bufio.NewReader(c))
			if err != nil {
				return
			}
			if !strings.HasPrefix(req.Host, "good") {
				io.WriteString(c, tt.answer)
				return
			}
			onward, err := net.Dial("tcp", receiver.Addr().String())
			if err != nil {
				t.Error(err)
				return
			}
			defer onward.Close()
			io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n")
			go func() { io.Copy(onward, c); onward.Close() }()
			io.Copy(c, onward)
		})
		c := throughProxy(t, "http://"+proxy.Addr().String(), newAuthority(t))
		to := func(host string) posthorn.Class { return mustSend(t, c, request("http://"+host+"/")).Class }
		if tt.answer != "" && (to("a.example") == posthorn.ClassLocal || to("b.example") == posthorn.ClassLocal || to("a.example") == posthorn.ClassLocal) {
			t.Errorf("%s: two destinations are taken for all", tt.name)
		}
		to("b.example")
		if got := to("c.example"); got != posthorn.ClassLocal {
			t.Errorf("%s: the third of three is %v", tt.name, got)
		}
		if got := to("good.example"); got != posthorn.ClassOK {
			t.Errorf("%s: %v", tt.name, got)
		}
		for _, host := range []string{"a.example", "b.example", "c.example", "d.example"} {
			if got := to(host); got == posthorn.ClassLocal {
				t.Errorf("%s: %s is local, though the proxy serves another", tt.name, host)
			}
		}
	}
}

// HTTP_PROXY and its kin are never read.
func TestProxyEnvironmentIsNotRead(t *testing.T) {
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"} {
		t.Setenv(name, "http://127.0.0.1:1")
	}
	r := listen(t, nil, answering(accepted))
	if a := mustSend(t, newClient(t, nil), request(r.URL())); !a.Succeeded() {
		t.Error(a.Explain())
	}
}
