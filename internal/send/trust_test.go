package send_test

import (
	"bufio"
	"crypto/x509"
	"io"
	"net"
	"testing"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/hell"
	"github.com/posthorn/posthorn/internal/send"
)

// No connection that was verified by authorities that are gone is used again, and no
// handshake of theirs is taken up again, whenever they went.
func TestConnectionsOfFormerAuthoritiesAreNotUsedAgain(t *testing.T) {
	theirs := func(_, others *hell.Authority) []*hell.Authority { return []*hell.Authority{others} }
	nobody := func(_, _ *hell.Authority) []*hell.Authority { return nil }
	both := func(ours, others *hell.Authority) []*hell.Authority { return []*hell.Authority{ours, others} }
	same := func(ours, _ *hell.Authority) []*hell.Authority { return []*hell.Authority{ours} }
	for name, tt := range map[string]struct {
		during bool // an attempt is under way when the authorities change
		trust  func(ours, others *hell.Authority) []*hell.Authority
		class  posthorn.Class
	}{
		"idle, others":         {false, theirs, posthorn.ClassTLS},
		"under way, others":    {true, theirs, posthorn.ClassTLS},
		"idle, none":           {false, nobody, posthorn.ClassTLS},
		"idle, both now":       {false, both, posthorn.ClassOK},
		"under way, both now":  {true, both, posthorn.ClassOK},
		"idle, the same again": {false, same, posthorn.ClassOK},
	} {
		t.Run(name, func(t *testing.T) {
			ours, others := newAuthority(t), newAuthority(t)
			asked, answer := make(chan struct{}, 10), make(chan struct{}, 10)
			r := listen(t, ours.Server(t, nil), func(r *receiver, c net.Conn) {
				br := bufio.NewReader(c)
				for {
					if _, err := r.Read(br); err != nil {
						return
					}
					asked <- struct{}{}
					<-answer
					io.WriteString(c, accepted)
				}
			})
			c := newClient(t, func(c *send.Config) { c.CAs = ours.Pool })
			pool := x509.NewCertPool()
			for _, authority := range tt.trust(ours, others) {
				pool.AddCert(authority.Cert)
			}
			first := make(chan posthorn.Attempt, 1)
			go func() { first <- c.Send(t.Context(), request(r.URLS())) }()
			<-asked
			if tt.during {
				c.Trust(pool)
			}
			answer <- struct{}{}
			if a := <-first; !a.Succeeded() {
				t.Fatalf("the attempt under way: %s", a.Explain())
			}
			if !tt.during {
				c.Trust(pool)
			}
			answer <- struct{}{}
			if a := mustSend(t, c, request(r.URLS())); a.Class != tt.class {
				t.Errorf("class %v, want %v", a.Class, tt.class)
			} else if a.Timings.TLS == 0 {
				t.Error("no handshake was made")
			}
		})
	}
}
