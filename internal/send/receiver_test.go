package send_test

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/hell"
	"github.com/posthorn/posthorn/internal/send"
	"github.com/posthorn/posthorn/webhook"
)

// The scripted receivers are shared with the tests of the whole service.
type receiver = hell.Receiver

var (
	listen       = hell.Listen
	answering    = hell.Answering
	once         = hell.Once
	reset        = hell.Reset
	stall        = hell.Stall
	newAuthority = hell.NewAuthority
)

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

var testKey = func() []byte { key, _ := webhook.ParseSecret(testSecret); return key }()

const testSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="

func newClient(t testing.TB, change func(*send.Config)) *send.Client {
	t.Helper()
	config := send.Config{AllowHTTP: true, AllowPrivate: loopback}
	if change != nil {
		change(&config)
	}
	c, err := send.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func request(url string) send.Request {
	return send.Request{
		URL: url, Signers: []*webhook.Signer{webhook.NewSigner(testKey)}, EventRef: "evt_01J1C6ZGQ6FQTH2X6M2VS3P0XW", EventType: "cases.updated",
		Delivery: posthorn.MakeID(time.Date(2026, 4, 29, 9, 10, 0, 0, time.UTC), 0, 1), Attempt: 1,
		Body: []byte(`{"id":"evt_01J1C6ZGQ6FQTH2X6M2VS3P0XW","data":{}}`), Timeout: 20 * time.Second, Endpoint: 1,
	}
}

func prefixes(texts ...string) []netip.Prefix {
	var list []netip.Prefix
	for _, s := range texts {
		list = append(list, netip.MustParsePrefix(s))
	}
	return list
}

// mustSend makes an attempt that must end within its time limit, give or take
// what a loaded machine needs.
func mustSend(t testing.TB, c *send.Client, r send.Request) posthorn.Attempt {
	t.Helper()
	began := time.Now()
	a := c.Send(context.Background(), r)
	if took := time.Since(began); took > r.Timeout+3*time.Second {
		t.Errorf("the attempt took %v with a limit of %v", took, r.Timeout)
	}
	return a
}
