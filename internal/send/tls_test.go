package send_test

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/hell"
	"github.com/posthorn/posthorn/internal/send"
)

func TestTLS(t *testing.T) {
	ca, stranger := newAuthority(t), newAuthority(t)
	for _, tt := range hell.Handshakes(t, ca, stranger) {
		t.Run(tt.Name, func(t *testing.T) {
			t.Parallel()
			r := listen(t, tt.Config, answering(accepted))
			c := newClient(t, func(c *send.Config) { c.CAs = ca.Pool })
			a := mustSend(t, c, request(r.URLS()))
			if a.Class != tt.Class || a.Detail != tt.Detail {
				t.Errorf("class %v, detail %q, want %v, %q", a.Class, a.Detail, tt.Class, tt.Detail)
			}
			want := 0
			if tt.Class == posthorn.ClassOK {
				want = 1
			}
			if _, n := r.Counts(); n != want {
				t.Errorf("the receiver got %d requests, want %d", n, want)
			}
			if a.Timings.TLS == 0 {
				t.Error("no time was taken for TLS")
			}
		})
	}
}

func TestTLSWithServersThatDoNotSpeakIt(t *testing.T) {
	for _, tt := range hell.NoTLS {
		t.Run(tt.Name, func(t *testing.T) {
			t.Parallel()
			r := listen(t, nil, func(_ *receiver, c net.Conn) { tt.Serve(c) })
			req := request(strings.Replace(r.URL(), "http:", "https:", 1))
			req.Timeout = 3 * time.Second
			a := mustSend(t, newClient(t, nil), req)
			if a.Class != tt.Class || a.Detail != tt.Detail {
				t.Errorf("class %v, detail %q, want %v, %q", a.Class, a.Detail, tt.Class, tt.Detail)
			}
		})
	}
}

// A receiver for HTTP/2 only is told as such, whether it refuses HTTP/1.1 in the
// handshake (TestTLS) or answers in frames.
func TestHTTP2OnlyReceivers(t *testing.T) {
	ca := newAuthority(t)
	for name, r := range map[string]*receiver{
		"TLS":   listen(t, ca.Server(t, nil), hell.HTTP2Only),
		"plain": listen(t, nil, hell.HTTP2Only),
	} {
		url := r.URL()
		if name == "TLS" {
			url = r.URLS()
		}
		a := mustSend(t, newClient(t, func(c *send.Config) { c.CAs = ca.Pool }), request(url))
		if conns, _ := r.Counts(); a.Class != posthorn.ClassProtocol || conns != 1 {
			t.Errorf("%s: class %v after %d connections, want protocol after 1: %s", name, a.Class, conns, a.Explain())
		}
	}
}

// What a tenant reads never holds an address or another system's words.
func TestDetailsAreOurOwnWords(t *testing.T) {
	ca := newAuthority(t)
	r := listen(t, ca.Server(t, nil), answering(accepted))
	c := newClient(t, nil) // without the authority
	a := mustSend(t, c, request(r.URLS()))
	for _, leak := range []string{"127.0.0.1", "x509", "test authority"} {
		if strings.Contains(a.Explain(), leak) {
			t.Errorf("%q holds %q", a.Explain(), leak)
		}
	}
}
