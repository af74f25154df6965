package client_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/posthorn/posthorn/client"
)

// endless is a body that begins in one way and goes on in another for ever. It counts
// what was read.
type endless struct {
	begin, on string
	read      int
}

func (e *endless) Read(b []byte) (n int, err error) {
	for n < len(b) {
		if e.read < len(e.begin) {
			c := copy(b[n:], e.begin[e.read:])
			n, e.read = n+c, e.read+c
			continue
		}
		c := copy(b[n:], e.on[(e.read-len(e.begin))%len(e.on):])
		n, e.read = n+c, e.read+c
	}
	return n, nil
}

func (e *endless) Close() error { return nil }

// serving returns a client of a server that gives the body to all that ask, and a count
// of them.
func serving(t *testing.T, status int, kind string, body io.ReadCloser) (*client.Client, *int) {
	asked := new(int)
	return newClient(t, client.Config{Server: "https://x", Token: token, HTTP: &http.Client{Transport: transport(func(*http.Request) (*http.Response, error) {
		*asked++
		return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {kind}}, Body: body, ContentLength: -1}, nil
	})}}), asked
}

func follow(ctx context.Context, c *client.Client) error {
	for _, err := range c.Stream(ctx, client.StreamOptions{}) {
		return err
	}
	return nil
}

// A server, or a proxy, that sends for ever fills no memory: what is read is bounded,
// the error says so, and it is not asked again.
func TestWhatHasNoEndIsAnError(t *testing.T) {
	const event, place = "text/event-stream", ": posthorn\nid: place\n\n"
	long, line := strings.Repeat("x", 1<<10), "data: "+strings.Repeat("x", 1<<10)+"\n"
	list := func(ctx context.Context, c *client.Client) error {
		for _, err := range c.Events(ctx, client.EventFilter{}) {
			return err
		}
		return nil
	}
	send := func(ctx context.Context, c *client.Client) error {
		_, err := c.Send(ctx, client.Event{Type: "cases.updated", Data: []byte("{}")})
		return err
	}
	export := func(ctx context.Context, c *client.Client) error {
		_, err := c.DownloadExport(ctx, "exp_1", io.Discard)
		return err
	}
	for _, tc := range []struct {
		name      string
		call      func(context.Context, *client.Client) error
		status    int
		kind      string
		begin, on string
		most      int // MiB
		says      string
	}{
		{"a line of the stream", follow, 200, event, place + "data: ", long, 4, "a line of the event stream is longer than 4 MiB"},
		{"the first line", follow, 200, event, "", long, 4, "a line of the event stream"},
		{"a comment", follow, 200, event, place + ": ", long, 4, "a line of the event stream"},
		{"a place", follow, 200, event, ": posthorn\nid: ", long, 4, "a line of the event stream"},
		{"the name of a field", follow, 200, event, place, "data", 4, "a line of the event stream"},
		{"an event of many lines", follow, 200, event, place, line, 4, "an event of the stream is longer than 4 MiB"},
		{"an event of empty lines of data", follow, 200, event, place, "data:\n", 4, "an event of the stream"},
		{"an event of lines and names", follow, 200, event, place, "event: x\nid: y\n" + line, 5, "an event of the stream"},
		{"no stream, but a page", follow, 200, "text/html", "<html>", long, 64, "the answer to GET /stream is larger than 64 MiB"},
		{"a problem in place of a stream", follow, 503, "application/problem+json", `{"detail":"`, long, 64, "the answer to GET /stream"},
		{"an answer to GET", get, 200, "application/json", `{"data":{"id":"`, long, 64, "the answer to GET /endpoints/"},
		{"an answer to POST", send, 202, "application/json", `{"data":[`, "[", 64, "the answer to POST /events"},
		{"an answer to PATCH", patch, 200, "application/json", " ", " ", 64, "the answer to PATCH /endpoints/"},
		{"a problem", get, 422, "application/problem+json", `{"errors":[`, `{},`, 64, "the answer to GET /endpoints/"},
		{"a proxy's page for 502", get, 502, "text/html", "", long, 64, "the answer to GET /endpoints/"},
		{"a page of a list", list, 200, "application/json", `{"data":[`, `{},`, 64, "the answer to GET /events"},
		{"a line of an export", export, 200, "application/x-ndjson", "{\"event\":{}}\n", long, 16, "a line of the export is longer than 16 MiB"},
		{"a problem in place of an export", export, 500, "text/plain", "", long, 64, "the answer to GET /exports/exp_1/content"},
	} {
		body := &endless{begin: tc.begin, on: tc.on}
		c, asked := serving(t, tc.status, tc.kind, body)
		err := tc.call(t.Context(), c)
		if !errors.Is(err, client.ErrEndless) || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.says)
		}
		if body.read > tc.most<<20+128<<10 || *asked != 1 {
			t.Errorf("%s: %d KiB were read by %d requests", tc.name, body.read>>10, *asked)
		}
	}
}

// What is as large as it may be is taken.
func TestTheLargestIsTaken(t *testing.T) {
	const size = 4<<20 - 1<<10
	data := fmt.Sprintf(`{"id":"e-1","type":"cases.updated","timestamp":"2026-04-29T09:10:00.000Z","data":{"x":%q}}`, strings.Repeat("x", size))
	c, _ := serving(t, 200, "text/event-stream", io.NopCloser(strings.NewReader(": posthorn\nid: 1\n\nid: 2\ndata: "+data+"\n\nid: 3\ndata: "+data+"\n\n")))
	n := 0
	for e, err := range c.Stream(t.Context(), client.StreamOptions{Patience: -1}) {
		if errors.Is(err, client.ErrEndless) || err == nil && string(e.Body) != data {
			t.Errorf("event %d: %v", n, err)
		}
		if err == nil {
			n++
		}
	}
	if n != 2 {
		t.Errorf("%d events came, want 2", n)
	}
	c, _ = serving(t, 200, "application/json", io.NopCloser(strings.NewReader(`{"data":{"id":"wh_1","url":"`+strings.Repeat("x", 60<<20)+`"}}`)))
	if e, err := c.Endpoint(t.Context(), "wh_1"); err != nil || len(e.URL) != 60<<20 {
		t.Error(err)
	}
}

// An answer counts as large as it is when it is unpacked.
func TestAPackedAnswerIsBoundedUnpacked(t *testing.T) {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	io.CopyN(z, &endless{on: " "}, 70<<20)
	z.Close()
	asked := 0
	c := connect(t, func(w http.ResponseWriter, _ *http.Request) {
		asked++
		w.Header().Set("Content-Encoding", "gzip")
		w.Write(packed.Bytes())
	})
	if _, err := c.Endpoint(t.Context(), "wh_1"); !errors.Is(err, client.ErrEndless) || asked != 1 {
		t.Errorf("%d bytes packed: %v, asked %d times", packed.Len(), err, asked)
	}
}

// lists are those of the client.
func lists(ctx context.Context, c *client.Client) map[string]iter.Seq[error] {
	return map[string]iter.Seq[error]{
		"endpoints": faults(c.Endpoints(ctx)), "events": faults(c.Events(ctx, client.EventFilter{})), "deliveries": faults(c.Deliveries(ctx, client.DeliveryFilter{PageSize: 1})),
		"replays": faults(c.Replays(ctx, "wh_1")), "audit": faults(c.Audit(ctx, client.AuditFilter{})), "tenants": faults(c.Tenants(ctx)),
		"tokens": faults(c.Tokens(ctx)), "outbox": faults(c.Outbox(ctx, "")), "event types": faults(c.EventTypes(ctx)),
	}
}

func faults[T any](all iter.Seq2[T, error]) iter.Seq[error] {
	return func(yield func(error) bool) {
		for _, err := range all {
			if !yield(err) {
				return
			}
		}
	}
}

// paged is a client of a server whose n-th page, counted from 0, names a cursor.
func paged(t *testing.T, data string, cursor func(n int) string, asked *int) *client.Client {
	return newClient(t, client.Config{Server: "https://x", Token: token, HTTP: &http.Client{Transport: transport(func(*http.Request) (*http.Response, error) {
		next := cursor(*asked)
		*asked++
		link := fmt.Sprintf(`<https://x/v2.3/webhooks/endpoints?cursor=%s>; rel="next"`, next)
		return respond(200, http.Header{"Link": {link}}, `{"data":[`+data+`],"next_cursor":"`+next+`"}`), nil
	})}})
}

// A list that comes back to where it was ends with an error, and gives nothing twice.
func TestAListThatGoesRoundEndsWithAnError(t *testing.T) {
	for name, tc := range map[string]struct {
		cursor func(n int) string
		pages  int // that are asked for
	}{
		"the query is dropped":            {func(int) string { return "a" }, 2},
		"the second page names itself":    {func(n int) string { return []string{"a", "b", "b"}[min(n, 2)] }, 3},
		"two in turn":                     {func(n int) string { return []string{"a", "b"}[n%2] }, 3},
		"back after a hundred":            {func(n int) string { return fmt.Sprint(n % 100) }, 101},
		"back to a place in the middle":   {func(n int) string { return fmt.Sprint(min(n, 5+n%3)) }, 7},
		"a cursor of many characters":     {func(int) string { return strings.Repeat("x", 1<<20) }, 2},
		"a cursor that must be escaped":   {func(int) string { return "%2B+%20" }, 2},
		"the same again after a long way": {func(n int) string { return fmt.Sprint(n % 5000) }, 5001},
	} {
		for list := range lists(t.Context(), nil) {
			asked, items := 0, 0
			var end error
			for err := range lists(t.Context(), paged(t, `{"id":"x"}`, tc.cursor, &asked))[list] {
				if end = err; err == nil {
					items++
				}
			}
			if !errors.Is(end, client.ErrEndless) || !strings.Contains(end.Error(), "goes round") {
				t.Errorf("%s, %s: %v", name, list, end)
			}
			if asked != tc.pages || items != tc.pages-1 {
				t.Errorf("%s, %s: %d pages were asked for and %d resources given, want %d, %d", name, list, asked, items, tc.pages, tc.pages-1)
			}
		}
	}
}

// A list that never ends is ended, whether its pages hold something or not.
func TestAListThatNeverEndsIsEnded(t *testing.T) {
	for _, tc := range []struct{ list, data string }{{"events", ""}, {"endpoints", `{"id":"x"}`}} {
		asked := 0
		var end error
		for err := range lists(t.Context(), paged(t, tc.data, func(n int) string { return fmt.Sprint("c", n) }, &asked))[tc.list] {
			end = err
		}
		if !errors.Is(end, client.ErrEndless) || !strings.Contains(end.Error(), "has more than 100000 pages") || asked != 100_000 {
			t.Errorf("%s with %q: %v after %d pages", tc.list, tc.data, end, asked)
		}
	}
}

// A cancellation that comes no further is an error, with what was done so far.
func TestACancellationThatComesNoFurtherIsAnError(t *testing.T) {
	for name, tc := range map[string]struct {
		canceled []int // by each request; the last one goes on
		sum      int
	}{
		"nothing from the beginning": {[]int{0}, 0}, "nothing more": {[]int{10, 5, 0}, 15}, "less than nothing": {[]int{3, -1}, 3},
		"one each time for ever": {[]int{1}, 10_000},
	} {
		asked := 0
		c := newClient(t, client.Config{Server: "https://x", Token: token, HTTP: &http.Client{Transport: transport(func(*http.Request) (*http.Response, error) {
			n := tc.canceled[min(asked, len(tc.canceled)-1)]
			asked++
			return respond(200, nil, fmt.Sprintf(`{"data":{"canceled":%d,"more":true,"until":"2026-04-29T09:10:00.000Z"}}`, n)), nil
		})}})
		sum, err := c.CancelPending(t.Context(), "wh_1", client.PendingFilter{}, nil)
		if !errors.Is(err, client.ErrEndless) || sum == nil || sum.Canceled != tc.sum || asked > 10_000 {
			t.Errorf("%s: %+v, %v after %d requests", name, sum, err, asked)
		}
	}
}

// Long lists that end are whole.
func TestLongListsAreWhole(t *testing.T) {
	asked := 0
	var ids []string
	c := newClient(t, client.Config{Server: "https://x", Token: token, HTTP: &http.Client{Transport: transport(func(*http.Request) (*http.Response, error) {
		asked++
		next := fmt.Sprintf(`"%d"`, asked)
		if asked == 3000 {
			next = "null"
		}
		return respond(200, nil, fmt.Sprintf(`{"data":[{"id":"%d"}],"next_cursor":%s}`, asked, next)), nil
	})}})
	for e, err := range c.Events(t.Context(), client.EventFilter{}) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, e.ID)
	}
	if len(ids) != 3000 || !slices.Contains(ids, "3000") {
		t.Errorf("%d events", len(ids))
	}
}
