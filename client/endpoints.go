package client

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// Endpoint is a URL with the event types it wants.
type Endpoint struct {
	resource    `json:"-"`
	ID          string   `json:"id"`
	URL         string   `json:"url"`
	Description string   `json:"description"`
	Events      []string `json:"events"`
	Status      string   `json:"status"` // active or paused
	// Secret signs the deliveries. It is set only in what CreateEndpoint returns.
	Secret    string    `json:"secret,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
	// ETag is the revision, for [EndpointChange.IfMatch]; empty in lists.
	ETag string `json:"-"`
}

// NewEndpoint is what CreateEndpoint needs; Description and Status may be empty.
type NewEndpoint struct {
	URL         string   `json:"url"`
	Events      []string `json:"events"`
	Description string   `json:"description,omitempty"`
	Status      string   `json:"status,omitempty"`
}

// EndpointChange holds what is to change; nil fields are left as they are.
type EndpointChange struct {
	URL         *string  `json:"url,omitzero"`
	Events      []string `json:"events,omitzero"`
	Description *string  `json:"description,omitzero"`
	Status      *string  `json:"status,omitzero"`
	// IfMatch is the ETag that the endpoint must still have (else status 412);
	// empty for any.
	IfMatch string `json:"-"`
}

// CreateEndpoint makes an endpoint. The answer is the only one with its secret.
func (c *Client) CreateEndpoint(ctx context.Context, e NewEndpoint) (*Endpoint, error) {
	return c.endpoint(ctx, request{method: http.MethodPost, path: "/endpoints", body: e})
}

// Endpoint returns one endpoint.
func (c *Client) Endpoint(ctx context.Context, id string) (*Endpoint, error) {
	return c.endpoint(ctx, request{method: http.MethodGet, path: "/endpoints" + segment(id)})
}

// UpdateEndpoint changes what is set in ch.
func (c *Client) UpdateEndpoint(ctx context.Context, id string, ch EndpointChange) (*Endpoint, error) {
	return c.endpoint(ctx, request{method: http.MethodPatch, path: "/endpoints" + segment(id), body: ch, header: ifMatch(ch.IfMatch)})
}

// DeleteEndpoint deletes an endpoint and cancels what waits for it. match is
// its ETag or empty.
func (c *Client) DeleteEndpoint(ctx context.Context, id, match string) error {
	_, err := c.do(ctx, request{method: http.MethodDelete, path: "/endpoints" + segment(id), header: ifMatch(match)}, nil)
	return err
}

func (c *Client) endpoint(ctx context.Context, r request) (*Endpoint, error) {
	var e Endpoint
	a, err := c.do(ctx, r, &e)
	if err != nil {
		return nil, err
	}
	e.ETag = a.header.Get("ETag")
	return &e, nil
}

func ifMatch(etag string) http.Header {
	if etag == "" {
		return nil
	}
	return http.Header{"If-Match": {etag}}
}

// Endpoints lists all endpoints, newest first.
func (c *Client) Endpoints(ctx context.Context) iter.Seq2[*Endpoint, error] {
	return func(yield func(*Endpoint, error) bool) {
		r := request{method: http.MethodGet, path: "/endpoints", query: url.Values{"limit": {strconv.Itoa(maxPage)}}}
		way := newWalk(r.path)
		for {
			var page []jsontext.Value
			a, err := c.do(ctx, r, &page)
			if err != nil {
				yield(nil, err)
				return
			}
			cursor := nextCursor(a.header)
			if err := way.goOn(cursor); err != nil {
				yield(nil, err)
				return
			}
			if !each(page, yield) || cursor == "" {
				return
			}
			r.query.Set("cursor", cursor)
		}
	}
}

// nextCursor is the cursor within Link: <…>; rel="next" (RFC 8288). Only the
// cursor is taken: a link could lead the token to another host.
func nextCursor(h http.Header) string {
	for _, line := range h.Values("Link") {
		for link := range strings.SplitSeq(line, ",") {
			target, params, ok := strings.Cut(link, ">")
			if !ok || !strings.Contains(strings.ReplaceAll(params, `"`, ""), "rel=next") {
				continue
			}
			if u, err := url.Parse(strings.TrimLeft(target, " <")); err == nil {
				return u.Query().Get("cursor")
			}
		}
	}
	return ""
}

// Health says how an endpoint fares.
type Health struct {
	resource      `json:"-"`
	Condition     string    `json:"condition"` // healthy, failing or paused
	Reason        string    `json:"reason"`    // user, gone or failing; empty unless paused
	Since         time.Time `json:"since"`
	LastSuccessAt time.Time `json:"last_success_at"`
	LastFailureAt time.Time `json:"last_failure_at"`
	NextAttemptAt time.Time `json:"next_attempt_at"`
	// PauseAt is when the endpoint will be paused if nothing succeeds.
	PauseAt time.Time `json:"pause_at"`
	// Waiting counts open deliveries; there are more if WaitingCapped.
	Waiting       int  `json:"waiting"`
	WaitingCapped bool `json:"waiting_capped"`
	// BlockedBy is the delivery that an ordered endpoint waits for, or empty.
	BlockedBy string `json:"blocked_by"`
}

// EndpointHealth returns an endpoint's health. Its times are zero where there
// is none.
func (c *Client) EndpointHealth(ctx context.Context, id string) (*Health, error) {
	var h Health
	_, err := c.do(ctx, request{method: http.MethodGet, path: "/endpoints" + segment(id) + "/health"}, &h)
	if err != nil {
		return nil, err
	}
	return &h, nil
}

// EndpointTest is a test that is under way.
type EndpointTest struct {
	resource  `json:"-"`
	ID        string    `json:"id"` // the event's
	Type      string    `json:"type"`
	Timestamp time.Time `json:"timestamp"`
	// Delivery is the delivery's id; [Client.Delivery] shows what came of it.
	Delivery string `json:"delivery"`
}

// TestEndpoint sends the endpoint webhooks.ping, or the catalogue's example of
// another type, at once and whatever it subscribes to. It may be called ten times a
// minute for each endpoint (else status 429).
func (c *Client) TestEndpoint(ctx context.Context, id, eventType string) (*EndpointTest, error) {
	body := struct {
		Type string `json:"type,omitzero"`
	}{eventType}
	return call[EndpointTest](ctx, c, request{method: http.MethodPost, path: "/endpoints" + segment(id) + "/test", body: body})
}
