// Package client is the Go client of Posthorn's HTTP API.
//
//	c, err := client.New(client.Config{
//		Server: "https://hooks.example.com",
//		Token:  os.Getenv("POSTHORN_TOKEN"),
//		HTTP:   &http.Client{},
//	})
//	accepted, err := c.Send(ctx, client.Event{Type: "cases.updated", Data: data})
//
// # Errors
//
// A method fails with an [*Error] when the server answered with a problem, and
// with an [*UnreachableError] when no answer came. Both can be found with
// errors.AsType. A context that ends makes the method return its error.
//
// # Retries
//
// A request is made again, at most [Config.Attempts] times in all, when nothing
// can be done twice by it: it is a GET, or a POST, which carries an
// Idempotency-Key of its own; and either no answer came or it was 429, 502, 503
// or 504 (or 409 on a second try, while the first is at work still).
// Retry-After is respected up to 30 s. PATCH and DELETE are made once. A program
// that may end between a POST and its answer, and makes it again when it is
// restarted, chooses the key itself: [WithIdempotencyKey].
//
// # Lists
//
// Lists are iterators that ask for the next page when it is needed:
//
//	for d, err := range c.Deliveries(ctx, client.DeliveryFilter{State: "failed"}) {
//		if err != nil {
//			return err
//		}
//		fmt.Println(d.ID, d.EventType)
//	}
//
// An error ends the list. What is read of a server is bounded: an answer, a line, a list
// without end are [ErrEndless]. A Client may be used concurrently.
package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/posthorn/posthorn"
)

// Config says how to reach a service.
type Config struct {
	// Server is the service's URL, such as "https://hooks.example.com".
	Server string
	// Token is the bearer token; it may not be empty.
	Token string
	// Tenant is whom a platform token speaks for. Leave it empty with a tenant's
	// token.
	Tenant string
	// HTTP makes the requests and belongs to the caller; nil for a client of its
	// own with a timeout of 30 s a request. Redirects are not followed: they
	// would take the token elsewhere.
	HTTP *http.Client
	// Attempts bounds how often a request is made; 0 for 3.
	Attempts int
	// UserAgent is sent with each request; empty for one that names the version.
	UserAgent string
}

// Client calls the API. Make one with [New].
type Client struct {
	base      string // server and common path
	token     string
	tenant    string
	http      *http.Client
	attempts  int
	userAgent string
}

const (
	basePath        = "/v2.3/webhooks"
	defaultAttempts = 3
	maxPause        = 30 * time.Second
)

// New returns a client, or an error that names what is wrong with cfg. It makes
// no request.
func New(cfg Config) (*Client, error) {
	u, err := url.Parse(cfg.Server)
	switch {
	case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Host == "":
		return nil, errors.New("client: the server is not a URL such as https://hooks.example.com")
	case u.User != nil, u.RawQuery != "", u.Fragment != "":
		return nil, errors.New("client: the server's URL may hold neither user, query nor fragment")
	case cfg.Token == "":
		return nil, errors.New("client: the token is empty")
	case strings.ContainsFunc(cfg.Token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return nil, errors.New("client: the token holds a character that no token has")
	case cfg.Tenant != "" && !posthorn.ValidTenantName(cfg.Tenant):
		return nil, fmt.Errorf("client: %q is not a tenant's name", cfg.Tenant)
	}
	c := &Client{
		base:      strings.TrimSuffix(strings.TrimRight(cfg.Server, "/"), basePath) + basePath,
		token:     cfg.Token,
		tenant:    cfg.Tenant,
		attempts:  cfg.Attempts,
		userAgent: cfg.UserAgent,
	}
	if c.attempts <= 0 {
		c.attempts = defaultAttempts
	}
	if c.userAgent == "" {
		c.userAgent = "posthorn-client/" + posthorn.Version
	}
	own := http.Client{Timeout: 30 * time.Second}
	if cfg.HTTP != nil {
		own = *cfg.HTTP
	} else {
		own.Transport = http.DefaultTransport.(*http.Transport).Clone()
	}
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	c.http = &own
	return c, nil
}

// request is one call of the API.
type request struct {
	method string
	path   string // behind the common path, escaped
	query  url.Values
	body   any // nil for none
	header http.Header
}

// answer is what came back, read to its end.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// do makes the request, again if that is safe and may help, and decodes the
// answer's "data" into to (nil for none).
func (c *Client) do(ctx context.Context, r request, to any) (answer, error) {
	body, err := encode(r.body)
	if err != nil {
		return answer{}, err
	}
	key := ""
	if r.method == http.MethodPost {
		if key = idempotencyKey(ctx); key == "" {
			key = rand.Text()
		}
	}
	for attempt := 1; ; attempt++ {
		a, err := c.once(ctx, r, body, key)
		if err == nil {
			return a, decode(a, to)
		}
		wait, again := pause(r.method, attempt, err)
		if !again || attempt >= c.attempts {
			return a, err
		}
		select {
		case <-ctx.Done():
			return a, err
		case <-time.After(wait):
		}
	}
}

// encode writes a body; nil for none.
func encode(body any) ([]byte, error) {
	switch body := body.(type) {
	case nil:
		return nil, nil
	case interface{ appendJSON([]byte) ([]byte, error) }:
		return body.appendJSON(nil)
	}
	b, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("client: the request cannot be written as JSON: %w", err)
	}
	return b, nil
}

func (c *Client) once(ctx context.Context, r request, body []byte, key string) (answer, error) {
	target := c.base + r.path
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, target, bytes.NewReader(body))
	if err != nil {
		return answer{}, fmt.Errorf("client: %w", err)
	}
	for name, values := range r.header {
		req.Header[name] = values
	}
	c.identify(req)
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return answer{}, c.unreachable(ctx, err)
	}
	defer resp.Body.Close()
	a := answer{status: resp.StatusCode, header: resp.Header}
	if a.body, err = readAll(resp.Body, r); err != nil {
		return a, c.unreachable(ctx, err)
	}
	if a.status < 200 || a.status > 299 {
		return a, problem(a, r)
	}
	return a, nil
}

// identify says who asks, and for whom.
func (c *Client) identify(req *http.Request) {
	req.Header.Set("Authorization", "Bearer "+c.token)
	req.Header.Set("User-Agent", c.userAgent)
	if c.tenant != "" {
		req.Header.Set("Posthorn-Tenant", c.tenant)
	}
}

// unreachable tells the end of the caller's context from a fault of the way, and leaves
// [ErrEndless] as it is.
func (c *Client) unreachable(ctx context.Context, err error) error {
	if errors.Is(err, ErrEndless) {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err // the rest of it repeats the method and the URL
	}
	return &UnreachableError{Server: strings.TrimSuffix(c.base, basePath), Err: err}
}

// pause says whether a request that failed may be made again, and when.
func pause(method string, attempt int, err error) (time.Duration, bool) {
	if method != http.MethodGet && method != http.MethodPost {
		return 0, false
	}
	// 100 ms, 200 ms, 400 ms…, each up to a half longer.
	wait := 100 * time.Millisecond << min(attempt-1, 8)
	wait += mathrand.N(wait / 2)
	if _, ok := errors.AsType[*UnreachableError](err); ok {
		return wait, true
	}
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return 0, false
	}
	switch e.Status {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return max(wait, e.RetryAfter), e.RetryAfter <= maxPause
	case http.StatusConflict:
		// The first try, which got no answer, may be at work still.
		return wait, method == http.MethodPost && attempt > 1
	}
	return 0, false
}

// decode reads {"data":…} into to.
func decode(a answer, to any) error {
	if to == nil {
		return nil
	}
	envelope := struct {
		Data jsontext.Value `json:"data"`
	}{}
	if err := json.Unmarshal(a.body, &envelope); err != nil || envelope.Data == nil {
		return &Error{Status: a.status, RequestID: a.header.Get("X-Request-Id"),
			Detail: "the answer is not what Posthorn sends; is the server's URL right?"}
	}
	return read(envelope.Data, to)
}

// read decodes one resource, or a list of them, and keeps its JSON.
func read(data jsontext.Value, to any) error {
	if err := json.Unmarshal(data, to); err != nil {
		return fmt.Errorf("client: the answer cannot be read; this client may be too old: %w", err)
	}
	if r, ok := to.(interface{ keep(jsontext.Value) }); ok {
		r.keep(data)
	}
	return nil
}

// resource is embedded by everything that the server describes.
type resource struct{ raw jsontext.Value }

// JSON is the resource as the server sent it, with members that this client
// does not know; nil for one that did not come from a server.
func (r *resource) JSON() jsontext.Value { return r.raw }

func (r *resource) keep(v jsontext.Value) { r.raw = v }

// segment escapes one path segment.
func segment(s string) string { return "/" + url.PathEscape(s) }
