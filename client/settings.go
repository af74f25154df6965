package client

import (
	"context"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"
)

// Secrets are what an endpoint's deliveries are signed with.
type Secrets struct {
	resource `json:"-"`
	Secret   string           `json:"secret"`
	Previous []PreviousSecret `json:"previous"` // newest first
}

// PreviousSecret is a former secret that signs until it expires.
type PreviousSecret struct {
	Secret    string    `json:"secret"`
	ExpiresAt time.Time `json:"expires_at"`
}

// Rotation says how a secret is replaced. Its zero value makes a new one and lets
// the former one sign for a day more.
type Rotation struct {
	// Overlap is how long the former secret signs too, up to 7 days in whole
	// seconds; nil for a day, 0 to end all former secrets now.
	Overlap *time.Duration
	// Secret is the new one; empty to have one made.
	Secret string
}

// EndpointSecret reveals an endpoint's secrets; that is audited.
func (c *Client) EndpointSecret(ctx context.Context, id string) (*Secrets, error) {
	return c.secrets(ctx, request{method: http.MethodGet, path: "/endpoints" + segment(id) + "/secret"})
}

// RotateSecret gives an endpoint a new secret and returns those that sign from
// now on.
func (c *Client) RotateSecret(ctx context.Context, id string, r Rotation) (*Secrets, error) {
	body := struct {
		Overlap *int64 `json:"overlap_seconds,omitzero"`
		Secret  string `json:"secret,omitzero"`
	}{Secret: r.Secret}
	if r.Overlap != nil {
		seconds := int64(*r.Overlap / time.Second)
		body.Overlap = &seconds
	}
	return c.secrets(ctx, request{method: http.MethodPost, path: "/endpoints" + segment(id) + "/secret/rotate", body: body})
}

func (c *Client) secrets(ctx context.Context, r request) (*Secrets, error) {
	var s Secrets
	if _, err := c.do(ctx, r, &s); err != nil {
		return nil, err
	}
	return &s, nil
}

// Settings are an endpoint's own delivery rules; zero where the service's default
// holds.
type Settings struct {
	resource `json:"-"`
	// Headers holds the names of the extra request headers. Their values are never
	// shown: each is nil.
	Headers        map[string]*string `json:"headers"`
	RatePerSecond  float64            `json:"rate_per_second"`
	MaxInFlight    int                `json:"max_in_flight"`
	TimeoutSeconds int                `json:"timeout_seconds"`
	RetrySchedule  []int              `json:"retry_schedule"` // seconds
	Filter         string             `json:"filter"`
	Ordered        bool               `json:"ordered"`
	// ETag is the revision, for [SettingsChange.IfMatch].
	ETag string `json:"-"`
}

// SettingsChange holds what is to change; nil fields are left as they are.
type SettingsChange struct {
	// Headers are set, or taken away where the value is nil; others stay.
	Headers        map[string]*string
	RatePerSecond  *float64
	MaxInFlight    *int
	TimeoutSeconds *int
	RetrySchedule  []int // seconds
	Filter         *string
	Ordered        *bool
	// Reset names the settings, as in the JSON, whose default is put back.
	Reset []string
	// IfMatch is the ETag that the settings must still have (else status 412);
	// empty for any.
	IfMatch string
}

// appendJSON appends the change as a merge patch.
func (s SettingsChange) appendJSON(b []byte) ([]byte, error) {
	patch := map[string]any{}
	if s.Headers != nil {
		patch["headers"] = s.Headers
	}
	if s.RatePerSecond != nil {
		patch["rate_per_second"] = *s.RatePerSecond
	}
	if s.MaxInFlight != nil {
		patch["max_in_flight"] = *s.MaxInFlight
	}
	if s.TimeoutSeconds != nil {
		patch["timeout_seconds"] = *s.TimeoutSeconds
	}
	if s.RetrySchedule != nil {
		patch["retry_schedule"] = s.RetrySchedule
	}
	if s.Filter != nil {
		patch["filter"] = *s.Filter
	}
	if s.Ordered != nil {
		patch["ordered"] = *s.Ordered
	}
	for _, name := range s.Reset {
		patch[name] = nil
	}
	text, err := json.Marshal(patch, json.Deterministic(true))
	return append(b, text...), err
}

// EndpointSettings returns an endpoint's settings.
func (c *Client) EndpointSettings(ctx context.Context, id string) (*Settings, error) {
	return c.settings(ctx, request{method: http.MethodGet, path: "/endpoints" + segment(id) + "/settings"})
}

// UpdateSettings changes what is set in ch.
func (c *Client) UpdateSettings(ctx context.Context, id string, ch SettingsChange) (*Settings, error) {
	return c.settings(ctx, request{method: http.MethodPatch, path: "/endpoints" + segment(id) + "/settings", body: ch, header: ifMatch(ch.IfMatch)})
}

func (c *Client) settings(ctx context.Context, r request) (*Settings, error) {
	var s Settings
	a, err := c.do(ctx, r, &s)
	if err != nil {
		return nil, err
	}
	s.ETag = a.header.Get("ETag")
	return &s, nil
}

// FilterTested is what a filter says of recent events.
type FilterTested struct {
	resource `json:"-"`
	Matching int             `json:"matching"`
	Failed   int             `json:"failed"` // delivered too
	Events   []FilteredEvent `json:"events"` // newest first
}

// FilteredEvent is one event that a filter was tried on. Matches is nil where it
// fails, and Error says why.
type FilteredEvent struct {
	ID      string `json:"id"`
	Type    string `json:"type"`
	Matches *bool  `json:"matches"`
	Error   string `json:"error"`
}

// TestFilter tries an expression on recent events of an endpoint's types. It
// changes nothing.
func (c *Client) TestFilter(ctx context.Context, id, expression string) (*FilterTested, error) {
	var t FilterTested
	body := struct {
		Filter string `json:"filter"`
	}{expression}
	if _, err := c.do(ctx, request{method: http.MethodPost, path: "/endpoints" + segment(id) + "/filter/test", body: body}, &t); err != nil {
		return nil, err
	}
	return &t, nil
}
