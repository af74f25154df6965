package proof

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// API calls the service as any HTTP client would.
type API struct {
	URL, Token string
	// HTTP is nil for the default client.
	HTTP *http.Client
}

// Base is what stands before every route.
const Base = "/v2.3/webhooks"

// Status is an answer other than the one that was wanted.
type Status struct {
	Method, Path string
	Code         int
	Body         string
	RetryAfter   string // the header
}

func (s *Status) Error() string {
	return fmt.Sprintf("%s %s: %d %s", s.Method, s.Path, s.Code, s.Body)
}

// Call sends body as it is (nil for none) and decodes the answer's "data" into
// data, unless that is nil. Every answer but 2xx is a [*Status].
func (a API) Call(ctx context.Context, method, path string, body []byte, data any) error {
	answer, err := a.ask(ctx, method, path, body)
	if err != nil || data == nil {
		return err
	}
	var envelope struct {
		Data jsontext.Value `json:"data"`
	}
	if err := json.Unmarshal(answer, &envelope); err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	return json.Unmarshal(envelope.Data, data)
}

// Page reads a list and decodes the whole answer, its "next_cursor" too.
func (a API) Page(ctx context.Context, path string, answer any) error {
	b, err := a.ask(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, answer)
}

func (a API) ask(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, a.URL+Base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+a.Token)
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	hc := a.HTTP
	if hc == nil {
		hc = http.DefaultClient
	}
	resp, err := hc.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 != 2 {
		return nil, &Status{Method: method, Path: path, Code: resp.StatusCode, Body: string(answer), RetryAfter: resp.Header.Get("Retry-After")}
	}
	return answer, nil
}

// Endpoint is what tests need of one.
type Endpoint struct {
	ID     string `json:"id"`
	Secret string `json:"secret"`
}

// CreateEndpoint registers a URL.
func (a API) CreateEndpoint(ctx context.Context, url, status string, events ...string) (Endpoint, error) {
	body, err := json.Marshal(struct {
		URL    string   `json:"url"`
		Events []string `json:"events"`
		Status string   `json:"status"`
	}{url, events, status})
	if err != nil {
		return Endpoint{}, err
	}
	var e Endpoint
	err = a.Call(ctx, http.MethodPost, "/endpoints", body, &e)
	return e, err
}

// SetStatus pauses or resumes an endpoint.
func (a API) SetStatus(ctx context.Context, endpoint, status string) error {
	return a.Call(ctx, http.MethodPatch, "/endpoints/"+endpoint, []byte(`{"status":"`+status+`"}`), nil)
}
