package client

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// StreamOptions say what to follow.
type StreamOptions struct {
	// Types are event types or patterns; none for all but operational types.
	Types []string
	// Endpoint selects what matched it; empty for all.
	Endpoint string
	// After is the Cursor to go on behind; empty to begin now.
	After string
	// Patience is for how long it is tried to make a connection again that was lost,
	// before the stream fails; 0 for 10 minutes, negative for not at all. The first one
	// is tried once.
	Patience time.Duration
	// Changed is told when the stream is connected (nil) and when that ended and is
	// tried again (why); or nil. It must be quick.
	Changed func(why error)
}

// Streamed is an event as it was published.
type Streamed struct {
	// Cursor is its place: pass it as After to go on behind it.
	Cursor string
	// Body is what endpoints receive, byte for byte; ID, Type, Timestamp and Data are
	// in it.
	Body      []byte
	ID        string
	Type      string
	Timestamp time.Time
	Data      jsontext.Value
	// Test marks a test.
	Test bool
}

const (
	defaultPatience = 10 * time.Minute
	// streamSilence is how long nothing may come, three heartbeats, before the
	// connection counts as lost.
	streamSilence = 45 * time.Second
)

// errSilent is why a stream without heartbeats is given up.
var errSilent = errors.New("nothing came for 45 seconds")

// Stream follows events as they are published, until ctx ends, an error, or the
// caller stops. A connection that is lost is made again and goes on behind the
// last event that the caller has dealt with, so that none is missed; one that was
// being dealt with when the process ended comes again if After is the one before.
//
// The errors are those of other calls; status 410 tells that After is older than
// events are kept. [ErrEndless] is a line or an event larger than any event.
func (c *Client) Stream(ctx context.Context, o StreamOptions) iter.Seq2[*Streamed, error] {
	return func(yield func(*Streamed, error) bool) {
		f := &follower{client: c, options: o, after: o.After, yield: yield}
		if f.options.Patience == 0 {
			f.options.Patience = defaultPatience
		}
		if f.options.Changed == nil {
			f.options.Changed = func(error) {}
		}
		f.run(ctx)
	}
}

// follower is a stream that is being read.
type follower struct {
	client  *Client
	options StreamOptions
	after   string
	yield   func(*Streamed, error) bool
	heard   time.Time // when something came
	stopped bool      // by the caller
	reached bool      // it was connected once
}

func (f *follower) run(ctx context.Context) {
	f.heard = time.Now()
	for try := 1; ; try++ {
		before := f.heard
		err := f.connect(ctx)
		switch {
		case f.stopped:
			return
		case ctx.Err() != nil:
			f.yield(nil, context.Cause(ctx))
			return
		}
		if f.heard.After(before) {
			try = 1
		}
		wait, again := pause(http.MethodGet, try, err)
		if wait = min(wait, 5*time.Second); !again || !f.reached || time.Since(f.heard)+wait > f.options.Patience {
			f.yield(nil, err)
			return
		}
		f.options.Changed(err)
		select {
		case <-ctx.Done():
			f.yield(nil, context.Cause(ctx))
			return
		case <-time.After(wait):
		}
	}
}

// connect reads one connection to its end.
func (f *follower) connect(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	alive := time.AfterFunc(streamSilence, func() { cancel(errSilent) })
	defer alive.Stop()
	r := request{method: http.MethodGet, path: "/stream", query: filter("types", strings.Join(f.options.Types, ","), "endpoint", f.options.Endpoint)}
	body, err := f.client.stream(ctx, r, f.after)
	if err != nil {
		return f.fault(ctx, err)
	}
	defer body.Close()
	f.reached = true
	begun := false
	in := bufio.NewReaderSize(body, 64<<10)
	var e sse
	for {
		line, err := readStreamLine(in)
		if err == nil && line != "" {
			err = e.field(line)
		}
		if err != nil {
			return f.fault(ctx, f.client.unreachable(ctx, err))
		}
		alive.Reset(streamSilence)
		f.heard = time.Now()
		if line != "" {
			continue
		}
		if !begun {
			// The stream opens with its place: from here on nothing is missed, whatever
			// happens to the connection, and only now may the caller be told so.
			begun = true
			f.options.Changed(nil)
		}
		one, err := e.dispatch()
		if err != nil {
			return err
		}
		if one != nil {
			alive.Stop() // the caller may take its time
			if !f.yield(one, nil) {
				f.stopped = true
				return nil
			}
			alive.Reset(streamSilence)
			f.heard = time.Now()
		}
		if e.id != "" {
			f.after = e.id
		}
	}
}

// fault tells silence from what else ended a connection.
func (f *follower) fault(ctx context.Context, err error) error {
	if context.Cause(ctx) == errSilent {
		return &UnreachableError{Server: strings.TrimSuffix(f.client.base, basePath), Err: errSilent}
	}
	return err
}

// stream makes one request whose answer does not end.
func (c *Client) stream(ctx context.Context, r request, after string) (io.ReadCloser, error) {
	target := c.base + r.path
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, target, nil)
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	c.identify(req)
	req.Header.Set("Accept", "text/event-stream, application/problem+json")
	if after != "" {
		req.Header.Set("Last-Event-ID", after)
	}
	endless := *c.http
	endless.Timeout = 0
	resp, err := endless.Do(req)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	if kind, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";"); resp.StatusCode == http.StatusOK && kind == "text/event-stream" {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	a := answer{status: resp.StatusCode, header: resp.Header}
	if a.body, err = readAll(resp.Body, r); err != nil {
		return nil, c.unreachable(ctx, err)
	}
	return nil, problem(a, r)
}

// readStreamLine reads one line without its end.
func readStreamLine(in *bufio.Reader) (string, error) {
	line, err := readLine(in, maxStreamEvent, "a line of the event stream")
	if err == io.EOF {
		err = errors.New("the server ended the stream")
	}
	return strings.TrimSuffix(string(line), "\n"), err
}

// sse gathers the fields of an event (WHATWG HTML, section 9.2.6).
type sse struct {
	id, name string
	test     bool
	data     []string
	size     int // of the lines of data
}

// field takes a line. It fails when the event becomes larger than any event.
func (e *sse) field(line string) error {
	name, value, _ := strings.Cut(line, ":")
	value = strings.TrimPrefix(value, " ")
	switch name {
	case "id":
		e.id = value
	case "event":
		e.name = value
	case "test":
		e.test = value == "true"
	case "data":
		if e.size += len(line) + 1; e.size > maxStreamEvent {
			return tooLong("an event of the stream", maxStreamEvent)
		}
		e.data = append(e.data, value)
	}
	return nil
}

// dispatch returns the event that a blank line ends, or nil: a heartbeat has only
// an id.
func (e *sse) dispatch() (*Streamed, error) {
	if e.data == nil {
		e.name, e.test = "", false
		return nil, nil
	}
	s := &Streamed{Cursor: e.id, Test: e.test, Body: []byte(strings.Join(e.data, "\n"))}
	name := e.name
	*e = sse{id: e.id}
	if name == "base64" {
		body, err := base64.StdEncoding.DecodeString(string(s.Body))
		if err != nil {
			return nil, fmt.Errorf("client: the stream is damaged: %w", err)
		}
		s.Body = body
	}
	var members struct {
		ID        string         `json:"id"`
		Type      string         `json:"type"`
		Timestamp time.Time      `json:"timestamp"`
		Data      jsontext.Value `json:"data"`
	}
	if err := json.Unmarshal(s.Body, &members); err != nil {
		return nil, fmt.Errorf("client: the stream holds what is no event: %w", err)
	}
	s.ID, s.Type, s.Timestamp, s.Data = members.ID, members.Type, members.Timestamp, members.Data
	return s, nil
}
