package client_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/posthorn/posthorn/client"
)

// transport answers in memory, so that time can be virtual.
type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func respond(status int, header http.Header, body string) *http.Response {
	if header == nil {
		header = http.Header{}
	}
	return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader(body))}
}

func TestRetriesOnlyWhatIsSafe(t *testing.T) {
	reset := &url.Error{Op: "Get", URL: "x", Err: errors.New("connection reset")}
	for _, tc := range []struct {
		name  string
		call  func(context.Context, *client.Client) error
		fail  func() (*http.Response, error)
		tries int
		took  time.Duration // at least
	}{
		{"GET, no answer", get, func() (*http.Response, error) { return nil, reset }, 3, 300 * time.Millisecond},
		{"GET, 503", get, func() (*http.Response, error) { return respond(503, nil, ""), nil }, 3, 300 * time.Millisecond},
		{"GET, 429 with Retry-After", get, func() (*http.Response, error) {
			return respond(429, http.Header{"Retry-After": {"7"}}, ""), nil
		}, 3, 14 * time.Second},
		{"GET, long Retry-After", get, func() (*http.Response, error) {
			return respond(503, http.Header{"Retry-After": {"3600"}}, ""), nil
		}, 1, 0},
		{"GET, 500", get, func() (*http.Response, error) { return respond(500, nil, ""), nil }, 1, 0},
		{"POST, 409", post, func() (*http.Response, error) { return respond(409, nil, ""), nil }, 1, 0},
		{"GET, 404", get, func() (*http.Response, error) { return respond(404, nil, ""), nil }, 1, 0},
		{"POST, no answer", post, func() (*http.Response, error) { return nil, reset }, 3, 300 * time.Millisecond},
		{"PATCH, no answer", patch, func() (*http.Response, error) { return nil, reset }, 1, 0},
		{"DELETE, 503", remove, func() (*http.Response, error) { return respond(503, nil, ""), nil }, 1, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tries, keys := 0, map[string]bool{}
				c := newClient(t, client.Config{Server: "https://x", Token: token, HTTP: &http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
					tries++
					keys[r.Header.Get("Idempotency-Key")] = true
					return tc.fail()
				})}})
				start := time.Now()
				if err := tc.call(t.Context(), c); err == nil {
					t.Error("no error")
				}
				if took := time.Since(start); tries != tc.tries || took < tc.took || took > 2*tc.took+time.Second {
					t.Errorf("%d tries in %v, want %d in about %v", tries, took, tc.tries, tc.took)
				}
				if len(keys) != 1 {
					t.Errorf("the tries had %d keys: the server could not know them as one", len(keys))
				}
			})
		})
	}
}

func TestARetryMayMeetItsFirstTry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		c := newClient(t, client.Config{Server: "https://x", Token: token, HTTP: &http.Client{Transport: transport(func(*http.Request) (*http.Response, error) {
			tries++
			switch tries {
			case 1:
				return nil, errors.New("timeout")
			case 2:
				return respond(409, nil, ""), nil
			}
			return respond(202, nil, `{"data":{"id":"evt_1"}}`), nil
		})}})
		if a, err := c.Send(t.Context(), client.Event{Type: "a", Data: []byte("{}")}); err != nil || a.ID != "evt_1" {
			t.Errorf("got %+v, %v", a, err)
		}
	})
}

func TestAKeyOfTheCallersOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var keys []string
		c := newClient(t, client.Config{Server: "https://x", Token: token, HTTP: &http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
			keys = append(keys, r.Method+" "+r.Header.Get("Idempotency-Key"))
			return respond(503, nil, ""), nil
		})}})
		ctx := client.WithIdempotencyKey(t.Context(), "mine")
		post(ctx, c)
		get(ctx, c)
		if want := "POST mine,POST mine,POST mine,GET ,GET ,GET "; strings.Join(keys, ",") != want {
			t.Errorf("got %q", keys)
		}
	})
}

func get(ctx context.Context, c *client.Client) error { _, err := c.Endpoint(ctx, "wh_1"); return err }
func post(ctx context.Context, c *client.Client) error {
	_, err := c.Send(ctx, client.Event{Type: "a", Data: []byte("{}")})
	return err
}
func patch(ctx context.Context, c *client.Client) error {
	_, err := c.UpdateEndpoint(ctx, "wh_1", client.EndpointChange{})
	return err
}
func remove(ctx context.Context, c *client.Client) error {
	return c.DeleteEndpoint(ctx, "wh_1", "")
}

func TestUnreachable(t *testing.T) {
	server := httptest.NewServer(nil)
	server.Close()
	_, err := newClient(t, client.Config{Server: server.URL, Token: token, Attempts: 1}).Endpoint(t.Context(), "wh_1")
	e, ok := errors.AsType[*client.UnreachableError](err)
	if !ok || e.Server != server.URL || strings.Contains(err.Error(), "wh_1") {
		t.Errorf("got %v", err)
	}
}

func TestAContextThatEndsIsTheError(t *testing.T) {
	why := errors.New("the user went away")
	ctx, cancel := context.WithCancelCause(t.Context())
	c := connect(t, func(_ http.ResponseWriter, r *http.Request) {
		cancel(why)
		<-r.Context().Done() // an answer must not be faster than the end
	})
	if _, err := c.Endpoint(ctx, "wh_1"); !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
}
