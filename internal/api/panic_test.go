package api

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/access"
	"github.com/posthorn/posthorn/internal/publish"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/tally"
)

// breaking is a store, an authenticator and a publisher that panic when they are
// told to, with secrets in their hands.
type breaking struct {
	Store
	Authenticator
	Publisher
	at string
}

// broken panics as programs do, not with words of its own.
func broken() {
	var list []int
	_ = list[len(list)+7]
}

func (b *breaking) CreateToken(ctx context.Context, c store.Change, t store.Token) (store.Token, error) {
	if b.at == "CreateToken" {
		broken()
	}
	return b.Store.CreateToken(ctx, c, t)
}

func (b *breaking) CreateEndpoint(ctx context.Context, c store.Change, e posthorn.Endpoint, seal func(id int64) (store.Sealed, error), limit int) (posthorn.Endpoint, error) {
	if b.at == "CreateEndpoint" {
		if _, err := seal(1); err == nil {
			broken()
		}
	}
	return b.Store.CreateEndpoint(ctx, c, e, seal, limit)
}

func (b *breaking) Authenticate(ctx context.Context, authorization []string, remote netip.Addr) (*access.Principal, error) {
	if b.at == "Authenticate" {
		if _, ok := access.HashToken(strings.TrimPrefix(authorization[0], "Bearer ")); ok {
			broken()
		}
	}
	return b.Authenticator.Authenticate(ctx, authorization, remote)
}

func (b *breaking) Publish(ctx context.Context, t posthorn.Tenant, events []publish.Event, pointer func(i int) string, once *store.Once, answer func([]publish.Accepted) []byte) ([]publish.Accepted, error) {
	if b.at == "Publish" {
		broken()
	}
	return b.Publisher.Publish(ctx, t, events, pointer, once, answer)
}

// A panic anywhere is a plain 500; its line in the log, with the stack and the
// words that Go shows of arguments, tells no secret; and the next request is served.
func TestPanicsTellNoSecret(t *testing.T) {
	b := &breaking{}
	w := newWorld(t, func(c *Config) {
		b.Store, b.Authenticator, b.Publisher = c.Store, c.Access, c.Publish
		c.Store, c.Access, c.Publish = b, b, b
	})
	const mark = "p4yl0ad-m4rk"
	cases := 0
	for _, c := range []struct{ at, who, path, body string }{
		{"Authenticate", "acme", "/events", `{"type":"cases.updated","data":{"a":"` + mark + `"}}`},
		{"Publish", "acme", "/events", `{"type":"cases.updated","data":{"a":"` + mark + `"}}`},
		{"Publish", "acme", "/events/batch", `{"events":[{"type":"cases.updated","data":{"a":"` + mark + `"}}]}`},
		{"CreateToken", "platform", "/tokens", `{"name":"` + mark + `"}`},
		{"CreateEndpoint", "acme", "/endpoints", `{"url":"https://e.example.com/` + mark + `","events":["cases.*"]}`},
	} {
		b.at = c.at
		got := w.as(c.who, "POST", c.path, c.body).with("Idempotency-Key", mark+fmt.Sprint(cases)).do().faults(500)
		for _, inside := range []string{"index out of range", "goroutine", "panic", mark} {
			if strings.Contains(got.body, inside) {
				t.Errorf("%s: the answer tells %q: %s", c.at, inside, got.body)
			}
		}
		b.at = ""
		w.as(c.who, "GET", "/events", "").with(tenantHeader, "acme").do().want(200)
		cases++
	}
	log := w.log.String()
	if strings.Count(log, "panic in a request handler") != cases || strings.Count(log, "index out of range [7]") != cases {
		t.Errorf("the log does not tell of %d panics", cases)
	}
	secrets := []string{mark, w.tokens["acme"], w.tokens["platform"]}
	for _, who := range []string{"acme", "platform"} { // the text as the words of a stack
		secrets = append(secrets, fmt.Sprintf("0x%x", binary.LittleEndian.Uint64([]byte(w.tokens[who])[8:])))
	}
	for _, secret := range secrets {
		if strings.Contains(log, secret) {
			t.Errorf("%q is in the log", secret)
		}
	}
	// A key made just before the panic is known to nobody; what is stored shows that
	// none was kept, and the log has nothing of the form of one.
	if strings.Contains(log, "whsec_") {
		t.Error("a secret is in the log")
	}
	tally.Count(t, "a panic is a plain 500, tells no secret, and the service goes on", cases)
}
