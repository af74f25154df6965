package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/posthorn/posthorn/client"
)

// A connection on which nothing comes any more, as after a laptop slept or a router
// forgot it, is given up after three heartbeats and made again, behind what was seen
// last: also when that was nothing but the place where the stream opened.
func TestASilentStreamIsMadeAgainWhereItWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var after []string
		var gave []time.Duration
		began := time.Now()
		c := newClient(t, client.Config{Server: "https://x", Token: token, HTTP: &http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
			after = append(after, r.Header.Get("Last-Event-ID"))
			gave = append(gave, time.Since(began))
			body, server := io.Pipe()
			try := len(after)
			go func() {
				fmt.Fprintf(server, ": posthorn\nid: place-%d\n\n", try)
				if try == 2 {
					io.WriteString(server, "id: seen\ndata: {\"id\":\"e-1\",\"type\":\"cases.updated\",\"timestamp\":\"2026-04-29T09:10:00.000Z\",\"data\":{}}\n\n")
				}
				<-r.Context().Done() // and no word more
				server.CloseWithError(r.Context().Err())
			}()
			return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"text/event-stream"}}, Body: body}, nil
		})}})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		connected, seen := 0, 0
		changed := func(why error) {
			if why == nil {
				if connected++; connected == 3 {
					cancel()
				}
			} else if _, ok := errors.AsType[*client.UnreachableError](why); !ok {
				t.Errorf("it was lost for %v", why)
			}
		}
		for e, err := range c.Stream(ctx, client.StreamOptions{Patience: 2 * time.Minute, Changed: changed}) {
			if err != nil {
				break // by cancel
			}
			if seen++; e.ID != "e-1" {
				t.Errorf("%+v", e)
			}
		}
		if want := []string{"", "place-1", "seen"}; !slices.Equal(after, want) || seen != 1 {
			t.Errorf("it went on behind %q, want %q; %d events", after, want, seen)
		}
		for i, at := range gave[1:] {
			if since := at - gave[i]; since < 45*time.Second || since > 51*time.Second {
				t.Errorf("made again after %s", since)
			}
		}
	})
}

// A connection that ends before the stream has told its place counts as none: the
// caller is not told that it follows, since what comes then would be missed.
func TestAStreamWithoutItsPlaceIsNotConnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		c := newClient(t, client.Config{Server: "https://x", Token: token, HTTP: &http.Client{Transport: transport(func(*http.Request) (*http.Response, error) {
			tries++
			body := ""
			if tries == 2 {
				body = ": posthorn\nid: place\n\n"
			}
			return respond(200, http.Header{"Content-Type": {"text/event-stream"}}, body), nil
		})}})
		var states []string
		for _, err := range c.Stream(t.Context(), client.StreamOptions{Patience: 3 * time.Second, Changed: func(why error) {
			states = append(states, fmt.Sprint(tries, why == nil))
		}}) {
			if err == nil {
				t.Error("an event came")
			}
		}
		if len(states) < 3 || !slices.Equal(states[:3], []string{"1 false", "2 true", "2 false"}) {
			t.Errorf("told %q", states)
		}
	})
}
