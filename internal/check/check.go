// Package check finds out what a receiver of webhooks does wrong, by sending it
// what it will meet one day: requests that are good, forged, altered, stale,
// repeated, slow, large and of a type that it does not know. All are marked as
// tests (posthorn-test: true). It judges by answers only: whether a repeated event
// is worked on once is for the receiver's owner to see.
//
// It runs on the developer's own machine and as that developer, so it dials what
// it is told to, loopback and private addresses too; the service's guard is not
// for this.
package check

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/posthorn/posthorn/webhook"
)

// Target is the receiver that is checked.
type Target struct {
	URL string
	// Secret is the endpoint's, in the whsec_ form.
	Secret string
	// Type and Data are the event that is sent; empty for webhooks.ping.
	Type string
	Data []byte
	// Limit is how long an answer may take, Aim how long it should; 0 for 15 s and
	// 3 s. Slowly is over what time the slow request is spread; 0 for 1 s.
	Limit, Aim, Slowly time.Duration
	UserAgent          string
	// Transport makes the requests; nil for one of its own.
	Transport http.RoundTripper
}

// Grade is how a check went.
type Grade string

const (
	OK      Grade = "ok"
	Warning Grade = "warning" // it works, and should be better
	Failed  Grade = "failed"
	Skipped Grade = "skipped"
)

// Finding is the outcome of one check.
type Finding struct {
	Check string `json:"check"` // a short name, such as "stale"
	Grade Grade  `json:"grade"`
	// What was sent, and Says what that showed, in a sentence.
	What string `json:"what"`
	Says string `json:"says"`
	// Status is the answer's; 0 if none came.
	Status     int     `json:"status"`
	DurationMS float64 `json:"duration_ms"`
}

// Run makes all checks, one after another, and passes each finding to tell as it
// is made. When the first, a good request, is not acknowledged, the others are
// skipped: they would show nothing. It returns an error for a target that is
// none, or when ctx ends.
func Run(ctx context.Context, t Target, tell func(Finding)) error {
	c, err := newChecker(t)
	if err != nil {
		return err
	}
	defer c.client.CloseIdleConnections()
	broken := false
	for i, p := range c.probes() {
		f := Finding{Check: p.name, What: p.what, Grade: Skipped, Says: "Not sent: it shows nothing as long as a good request is not acknowledged."}
		if !broken {
			f = c.try(ctx, i+1, p)
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
		tell(f)
		broken = broken || p.name == "good" && f.Grade == Failed
	}
	return nil
}

type checker struct {
	Target
	key    []byte
	client *http.Client
	run    string // part of all ids
}

func newChecker(t Target) (*checker, error) {
	u, err := url.Parse(t.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, errors.New("the receiver's URL must be absolute, as https://partner.example.com/hooks")
	}
	if u.User != nil || u.Fragment != "" {
		return nil, errors.New("the receiver's URL may hold neither user nor fragment, as an endpoint's may not")
	}
	key, err := webhook.ParseSecret(t.Secret)
	if err != nil {
		return nil, err
	}
	if t.Type == "" {
		t.Type, t.Data = "webhooks.ping", []byte(`{"note":"sent by posthorn check"}`)
	}
	for d, otherwise := range map[*time.Duration]time.Duration{&t.Limit: 15 * time.Second, &t.Aim: 3 * time.Second, &t.Slowly: time.Second} {
		if *d <= 0 {
			*d = otherwise
		}
	}
	if t.Transport == nil {
		own := http.DefaultTransport.(*http.Transport).Clone()
		own.Proxy, own.ForceAttemptHTTP2 = nil, false // as the service sends
		own.Protocols = new(http.Protocols)
		own.Protocols.SetHTTP1(true)
		t.Transport = own
	}
	return &checker{Target: t, key: key, run: strings.ToLower(rand.Text()[:10]), client: &http.Client{
		Transport: t.Transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// message is one request before it is sent.
type message struct {
	method    string
	id        string
	at        time.Time
	body      []byte
	signature string // empty for the right one
	bare      bool   // without the webhook-… headers
	typ       string
	slowly    bool
}

func (c *checker) message(n int) *message {
	m := &message{method: http.MethodPost, id: fmt.Sprintf("evt_test_check_%s_%02d", c.run, n), at: time.Now(), typ: c.Type}
	m.body = envelope(m.id, m.typ, m.at, c.Data)
	return m
}

// envelope is a body as Posthorn writes them.
func envelope(id, typ string, at time.Time, data []byte) []byte {
	return fmt.Appendf(nil, `{"id":%q,"type":%q,"timestamp":"%s","data":%s}`, id, typ, at.UTC().Format("2006-01-02T15:04:05.000Z"), data)
}

func (m *message) sign(key []byte) string {
	return string(webhook.Sign(nil, m.id, m.at, m.body, key))
}

// answer is what came back.
type answer struct {
	status   int
	location string
	took     time.Duration
	err      error
}

func (c *checker) send(ctx context.Context, m *message) (a answer) {
	ctx, cancel := context.WithTimeout(ctx, c.Limit)
	defer cancel()
	var body io.Reader = bytes.NewReader(m.body)
	if m.slowly {
		body = &dribble{ctx: ctx, rest: m.body, pause: c.Slowly / dribbles}
	}
	r, err := http.NewRequestWithContext(ctx, m.method, c.URL, body)
	if err != nil {
		return answer{err: err}
	}
	r.ContentLength = int64(len(m.body))
	if m.method == http.MethodGet {
		r.Body, r.ContentLength = http.NoBody, 0
	}
	r.Header.Set("User-Agent", c.UserAgent)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("posthorn-test", "true")
	r.Header.Set("posthorn-event-type", m.typ)
	if !m.bare {
		signature := m.signature
		if signature == "" {
			signature = m.sign(c.key)
		}
		r.Header.Set(webhook.HeaderID, m.id)
		r.Header.Set(webhook.HeaderTimestamp, strconv.FormatInt(m.at.Unix(), 10))
		r.Header.Set(webhook.HeaderSignature, signature)
	}
	start := time.Now()
	resp, err := c.client.Do(r)
	a.took = time.Since(start)
	if err != nil {
		a.err = err
		return a
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 4096) // so that the connection can be kept; what it says does not matter
	a.status, a.location = resp.StatusCode, resp.Header.Get("Location")
	return a
}

// dribbles is in how many pieces a slow request comes.
const dribbles = 5

// dribble hands a body out in pieces, with pauses between them.
type dribble struct {
	ctx   context.Context
	rest  []byte
	pause time.Duration
	size  int
}

func (d *dribble) Read(b []byte) (int, error) {
	if len(d.rest) == 0 {
		return 0, io.EOF
	}
	if d.size == 0 {
		d.size = len(d.rest)/dribbles + 1
	}
	select {
	case <-d.ctx.Done():
		return 0, d.ctx.Err()
	case <-time.After(d.pause):
	}
	n := copy(b, d.rest[:min(d.size, len(d.rest))])
	d.rest = d.rest[n:]
	return n, nil
}

// unanswered says why no answer came.
func (c *checker) unanswered(a answer) string {
	var dns *net.DNSError
	var timeout net.Error
	err := a.err
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err // the rest of it repeats the URL
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Sprintf("No answer within %v; answer 2xx first and work afterwards.", c.Limit)
	case errors.As(err, &dns):
		return "The host name has no address."
	case errors.Is(err, io.EOF):
		return "The connection was closed before an answer came; look into the receiver's log."
	}
	return fmt.Sprintf("No answer came: %v.", err)
}
