package client

import (
	"context"
	"iter"
	"net/http"
	"time"
)

// Tenant is a partner of the platform. Its calls need a platform token with the
// scope "admin".
type Tenant struct {
	resource  `json:"-"`
	Name      string    `json:"name"`
	CreatedAt time.Time `json:"created_at"`
	Suspended bool      `json:"suspended"`
}

// Tenants lists tenants, newest first.
func (c *Client) Tenants(ctx context.Context) iter.Seq2[*Tenant, error] {
	return list[Tenant](ctx, c, "/tenants", nil, 0)
}

// CreateTenant makes a tenant; status 409 if the name is taken.
func (c *Client) CreateTenant(ctx context.Context, name string) (*Tenant, error) {
	body := struct {
		Name string `json:"name"`
	}{name}
	return call[Tenant](ctx, c, request{method: http.MethodPost, path: "/tenants", body: body})
}

// Tenant returns one tenant.
func (c *Client) Tenant(ctx context.Context, name string) (*Tenant, error) {
	return get[Tenant](ctx, c, "/tenants"+segment(name))
}

// DeleteTenant deletes a tenant with all that belongs to it.
func (c *Client) DeleteTenant(ctx context.Context, name string) error {
	_, err := c.do(ctx, request{method: http.MethodDelete, path: "/tenants" + segment(name)}, nil)
	return err
}

// SuspendTenant refuses the tenant's publishing and holds its deliveries.
func (c *Client) SuspendTenant(ctx context.Context, name string) (*Tenant, error) {
	return call[Tenant](ctx, c, request{method: http.MethodPost, path: "/tenants" + segment(name) + "/suspend"})
}

// ResumeTenant ends a suspension.
func (c *Client) ResumeTenant(ctx context.Context, name string) (*Tenant, error) {
	return call[Tenant](ctx, c, request{method: http.MethodPost, path: "/tenants" + segment(name) + "/resume"})
}

// Deletion is what the deletion of a tenant has erased so far.
type Deletion struct {
	resource  `json:"-"`
	Tenant    string    `json:"tenant"`
	DeletedAt time.Time `json:"deleted_at"`
	// CompletedAt is zero while something is left.
	CompletedAt  time.Time `json:"completed_at"`
	Endpoints    int64     `json:"endpoints"`
	Secrets      int64     `json:"secrets"`
	Tokens       int64     `json:"tokens"`
	Events       int64     `json:"events"`
	PayloadBytes int64     `json:"payload_bytes"`
	Deliveries   int64     `json:"deliveries"`
}

// Deletions lists deleted tenants, newest first.
func (c *Client) Deletions(ctx context.Context) iter.Seq2[*Deletion, error] {
	return list[Deletion](ctx, c, "/deletions", nil, 0)
}

// Token is an access token; its text is known to its owner only.
type Token struct {
	resource `json:"-"`
	ID       string `json:"id"`
	// Tenant is empty for a token of the platform.
	Tenant    string    `json:"tenant"`
	Name      string    `json:"name"`
	Scopes    []string  `json:"scopes"`
	CreatedAt time.Time `json:"created_at"`
	// ExpiresAt is zero for never.
	ExpiresAt time.Time `json:"expires_at"`
	// LastUsedAt is zero for never, and up to a minute old.
	LastUsedAt time.Time `json:"last_used_at"`
	// Text is the token itself, only in what CreateToken returns.
	Text string `json:"token,omitempty"`
}

// NewToken is what CreateToken needs.
type NewToken struct {
	// Tenant is empty for a token of the platform.
	Tenant string   `json:"tenant,omitempty"`
	Name   string   `json:"name,omitempty"`
	Scopes []string `json:"scopes"`
	// ExpiresAt is zero for never.
	ExpiresAt time.Time `json:"expires_at,omitzero"`
}

// Tokens lists tokens, newest first.
func (c *Client) Tokens(ctx context.Context) iter.Seq2[*Token, error] {
	return list[Token](ctx, c, "/tokens", nil, 0)
}

// CreateToken makes a token. The answer is the only one with its text.
func (c *Client) CreateToken(ctx context.Context, t NewToken) (*Token, error) {
	return call[Token](ctx, c, request{method: http.MethodPost, path: "/tokens", body: t})
}

// DeleteToken makes a token worthless.
func (c *Client) DeleteToken(ctx context.Context, id string) error {
	_, err := c.do(ctx, request{method: http.MethodDelete, path: "/tokens" + segment(id)}, nil)
	return err
}

// Sending tells whether deliveries are sent at all.
type Sending struct {
	resource `json:"-"`
	Sending  bool `json:"sending"`
}

// PauseSending stops all deliveries of the installation; events are accepted
// still.
func (c *Client) PauseSending(ctx context.Context) (*Sending, error) {
	return call[Sending](ctx, c, request{method: http.MethodPost, path: "/sending/pause"})
}

// ResumeSending undoes PauseSending.
func (c *Client) ResumeSending(ctx context.Context) (*Sending, error) {
	return call[Sending](ctx, c, request{method: http.MethodPost, path: "/sending/resume"})
}
