package send_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	standard "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/send"
	"github.com/posthorn/posthorn/webhook"
)

const accepted = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

// The bytes on the wire, all of them: what is not here is not sent (no
// accept-encoding, no expect, no connection header).
func TestRequestOnTheWire(t *testing.T) {
	r := listen(t, nil, answering(accepted))
	at := time.Date(2026, 4, 29, 9, 10, 0, 5e8, time.UTC)
	c := newClient(t, func(c *send.Config) {
		c.UserAgent = "Posthorn/1.2.3"
		c.Now = func() time.Time { return at }
	})
	req := request(r.URL())
	req.Attempt, req.Test = 3, true
	req.Headers = []posthorn.Header{
		{Name: "X-Team", Value: "a"}, {Name: "x-team", Value: " b "}, {Name: "Authorization", Value: "Bearer t"},
		{Name: "Webhook-ID", Value: "forged"}, {Name: "svix-id", Value: "forged"}, {Name: "Idempotency-Key", Value: "1"},
		{Name: "content-type", Value: "text/plain"}, {Name: "Content-Length", Value: "0"}, {Name: "HOST", Value: "internal"},
		{Name: "Transfer-Encoding", Value: "chunked"}, {Name: "Connection", Value: "close"}, {Name: "Expect", Value: "100-continue"},
		{Name: "User-Agent", Value: "x"}, {Name: "posthorn-test", Value: "x"}, {Name: "Accept-Encoding", Value: "gzip"},
		{Name: "Webhook_Id", Value: "forged"}, {Name: "content_type", Value: "text/plain"},
		{Name: "posthorn_attempt", Value: "1"}, {Name: "X_Key", Value: "1"}, {Name: "X-Key", Value: "2"}, {Name: "x.key", Value: "3"},
		{Name: "X-Split", Value: "a\r\nX-Injected: b"}, {Name: "X-Bad\r\nX-Injected", Value: "b"}, {Name: "", Value: "x"},
	}
	if a := mustSend(t, c, req); !a.Succeeded() {
		t.Fatal(a.Explain())
	}
	signature := string(webhook.Sign(nil, req.EventRef, at, req.Body, testKey))
	want := strings.Join([]string{
		"POST /hooks?a=b HTTP/1.1", "Host: " + r.Addr().String(), "x-team: b", "Authorization: Bearer t", "x.key: 3",
		"User-Agent: Posthorn/1.2.3", "Content-Type: application/json", "Content-Length: 49",
		"webhook-id: evt_01J1C6ZGQ6FQTH2X6M2VS3P0XW", "webhook-timestamp: 1777453800", "webhook-signature: " + signature,
		"posthorn-delivery: " + req.Delivery.Text(posthorn.DeliveryPrefix), "posthorn-attempt: 3",
		"posthorn-event-type: cases.updated", "posthorn-test: true", "", string(req.Body),
	}, "\r\n")
	if diff := cmp.Diff(want, string(r.Last().Raw)); diff != "" {
		t.Errorf("on the wire (-want +got):\n%s", diff)
	}
}

func TestOfficialLibraryVerifies(t *testing.T) {
	r := listen(t, nil, answering(accepted))
	req := request(r.URL())
	old := webhook.NewSecret()
	oldKey, err := webhook.ParseSecret(old)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{0, 100, 4 << 10, 300 << 10} {
		req.Signers = []*webhook.Signer{webhook.NewSigner(testKey), webhook.NewSigner(oldKey)}
		req.Body = bytes.Repeat([]byte("ä\x00"), size/3)
		if a := mustSend(t, newClient(t, nil), req); !a.Succeeded() {
			t.Fatal(a.Explain())
		}
		got := r.Last()
		if !bytes.Equal(got.Body, req.Body) {
			t.Errorf("%d bytes: the body came otherwise", size)
		}
		for _, secret := range []string{testSecret, old} {
			official, err := standard.NewWebhook(secret)
			if err != nil {
				t.Fatal(err)
			}
			if err := official.Verify(got.Body, got.Header); err != nil {
				t.Errorf("%d bytes: %v", size, err)
			}
		}
	}
}

func TestNoKeyIsOurFault(t *testing.T) {
	r := listen(t, nil, answering(accepted))
	req := request(r.URL())
	req.Signers = nil
	if a := mustSend(t, newClient(t, nil), req); a.Class != posthorn.ClassLocal {
		t.Errorf("class %v", a.Class)
	}
	req = request(r.URL())
	req.EventRef = "a\r\nx: y"
	if a := mustSend(t, newClient(t, nil), req); a.Class != posthorn.ClassLocal {
		t.Errorf("class %v", a.Class)
	}
	if _, n := r.Counts(); n != 0 {
		t.Errorf("%d requests on the wire", n)
	}
}

func TestAttemptTellsWhatCame(t *testing.T) {
	body := strings.Repeat("ü", 3000)
	r := listen(t, nil, answering("HTTP/1.1 503 Busy\r\nX-Request-Id: r1\r\nSet-Cookie: secret\r\nServer: "+strings.Repeat("s", 300)+
		"\r\nRetry-After: 120\r\nContent-Type: text/plain\r\nContent-Length: 6000\r\n\r\n"+body))
	c := newClient(t, nil)
	a := mustSend(t, c, request(r.URL()))
	want := []posthorn.Header{
		{Name: "content-type", Value: "text/plain"}, {Name: "retry-after", Value: "120"},
		{Name: "server", Value: strings.Repeat("s", 256)}, {Name: "x-request-id", Value: "r1"},
	}
	if diff := cmp.Diff(want, a.Headers); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
	if a.RetryAfter != 2*time.Minute || a.Number != 1 || a.At.IsZero() {
		t.Errorf("retry after %v, number %d, at %v", a.RetryAfter, a.Number, a.At)
	}
	if string(a.Snippet) != body[:4096] || a.BodyNote != "truncated" {
		t.Errorf("%d bytes of body, note %q", len(a.Snippet), a.BodyNote)
	}
	if a.Timings.Connect <= 0 || a.Timings.FirstByte <= 0 || a.Timings.TLS != 0 || a.Timings.DNS != 0 || a.Duration < a.Timings.Connect {
		t.Errorf("timings %+v of %v", a.Timings, a.Duration)
	}
}

func TestShutdownIsLocal(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	r := listen(t, nil, once(func(c net.Conn) { cancel(); stall(c) }))
	a := newClient(t, nil).Send(ctx, request(r.URL()))
	if a.Class != posthorn.ClassLocal || a.Duration > time.Second {
		t.Errorf("class %v after %v", a.Class, a.Duration)
	}
	if a := newClient(t, nil).Send(ctx, request(r.URL())); a.Class != posthorn.ClassLocal {
		t.Errorf("with a context that is over: class %v", a.Class)
	}
	ctx, cancel = context.WithCancel(context.Background())
	r = listen(t, nil, once(func(c net.Conn) {
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
		<-time.After(50 * time.Millisecond)
		cancel()
		stall(c)
	}))
	if a := newClient(t, nil).Send(ctx, request(r.URL())); !a.Succeeded() || string(a.Snippet) != "ab" {
		t.Errorf("the answer was there: class %v, body %q", a.Class, a.Snippet)
	}
}

// Product code must not find a way around the guard: the clients of net/http
// that everybody shares follow redirects, read HTTP_PROXY and judge nothing.
func TestNobodyGoesAroundTheGuard(t *testing.T) {
	around := regexp.MustCompile(`http\.(DefaultClient|DefaultTransport|ProxyFromEnvironment|Get\(|Post\(|PostForm\(|Head\()`)
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		switch path {
		case filepath.Join(root, "client"): // calls our API from users' machines, perhaps by their proxy
			return filepath.SkipDir
		case filepath.Join(root, "internal", "check"): // asks a developer's own receiver, from the developer's machine
			return filepath.SkipDir
		case filepath.Join(root, "internal", "proof"): // drives the binary from outside, in tests
			return filepath.SkipDir
		}
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for i, line := range strings.Split(string(source), "\n") {
			code, _, _ := strings.Cut(line, "//")
			if around.MatchString(code) {
				t.Errorf("%s:%d uses %s: webhooks go out by send.Client only, whose guard judges each address", path, i+1, around.FindString(code))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestSettingsAreChecked(t *testing.T) {
	for _, cidr := range []string{"169.254.0.0/16", "169.254.169.0/24", "fe80::/10", "fe80::/64", "224.0.0.0/8", "0.0.0.0/32", "ff02::1/128"} {
		if _, err := send.New(send.Config{AllowPrivate: prefixes(cidr)}); err == nil || !strings.Contains(err.Error(), cidr) {
			t.Errorf("%s is accepted: %v", cidr, err)
		}
	}
	if _, err := send.New(send.Config{AllowPrivate: prefixes("10.0.0.0/8", "169.254.169.254/32", "fd00::/8", "100.64.0.0/10", "fe80::1/128")}); err != nil {
		t.Error(err)
	}
	if _, err := send.New(send.Config{UserAgent: "a\r\nb"}); err == nil {
		t.Error("a user agent of two lines is accepted")
	}
}
