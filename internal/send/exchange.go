package send

import (
	"context"
	"errors"
	"io"
	"math"
	"sync"
	"time"

	"github.com/posthorn/posthorn"
)

const (
	// maxHead bounds an answer's status line and headers, interim answers
	// included.
	maxHead = 64 << 10
	// maxHeadLines bounds their lines: 64 KiB of short ones take 1 MiB when they
	// are parsed, and thousands of receivers may send them and then be silent.
	maxHeadLines = 256
	// maxInterim bounds the 1xx answers before the real one.
	maxInterim = 8
	// smallRequest is what goes out in one write, without waiting for a receiver
	// to read: every socket buffer holds it.
	smallRequest = 4 << 10
	// unframedTime is how long a failure's body is read for whose end is unknown.
	unframedTime = time.Second
	// afterBreak is how long an answer is looked for after the connection broke
	// while the request was written.
	afterBreak = 100 * time.Millisecond
)

// exchange is one attempt under way.
type exchange struct {
	client   *Client
	request  Request
	attempt  posthorn.Attempt
	began    time.Time
	deadline time.Time
	out      writing
}

// buffers serve to put small requests together and to read bodies.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, max(smallRequest, posthorn.MaxSnippet+1)); return &b }}

// run makes the attempt. When it returns an error no answer came; the error is
// a fault or a fault of our own side.
func (x *exchange) run(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err // a kept connection would be written to before anyone noticed
	}
	t, err := x.client.targets.get(&x.client.guard, x.request.URL)
	if err != nil {
		return &fault{posthorn.ClassRefused, "the url is not one that webhooks may be sent to", err}
	}
	if err := checkRequest(&x.request); err != nil {
		return err
	}
	buffer := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	head := x.client.appendHead((*buffer)[:0], t, &x.request, x.client.wall())

	// A kept connection that turns out to be closed before any byte of the
	// request was written has spent nothing: one more is dialled. This is the
	// only place where a request is begun a second time.
	if c := x.client.pool.get(x.request.Endpoint, t.origin); c != nil {
		reaches := x.reaches(c)
		err := x.on(ctx, c, head)
		if err == nil && reaches {
			x.client.outage.pass(t.host)
		}
		if !errors.Is(err, errNothingWritten) {
			return err
		}
	}
	dialing, cancel := context.WithDeadline(ctx, x.deadline)
	c, err := x.connect(dialing, t)
	cancel()
	if err != nil {
		return err
	}
	return x.on(ctx, c, head)
}

// checkRequest refuses what could break out of a header. Both texts were checked
// when the event was published; here nothing depends on that.
func checkRequest(r *Request) error {
	if len(r.Signers) == 0 {
		return errNoKey
	}
	if !posthorn.ValidHeaderValue(r.EventRef) || !posthorn.ValidHeaderValue(r.EventType) {
		return errors.New("the event's id or type holds a control character")
	}
	return nil
}

// on writes the request to the connection and reads the answer. It owns the
// connection: afterwards it is closed, or idle in the pool.
func (x *exchange) on(ctx context.Context, c *conn, head []byte) error {
	c.SetDeadline(x.deadline)
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(longAgo) })
	c.left, c.lines = maxHead, 0
	keep, err := x.speak(c, head)
	if stop() && err == nil && keep {
		x.client.pool.put(c)
	} else {
		c.Close()
	}
	return err
}

// speak writes and reads; keep reports whether the connection may serve again.
func (x *exchange) speak(c *conn, head []byte) (keep bool, err error) {
	if !x.enter() {
		return false, errShut
	}
	w := x.write(c, head)
	if _, err := c.br.Peek(1); err != nil {
		w.interrupt(c)
		switch {
		case w.broke() && c.reused && w.n == 0:
			return false, errNothingWritten
		case w.broke() && isTimeout(err):
			return false, readFault(w.err, false)
		}
		return false, readFault(err, false)
	}
	answered := time.Now()
	a, err := readHead(c)
	if err != nil {
		w.interrupt(c)
		return false, err
	}
	x.take(a)
	if a.status < 200 {
		// Nothing follows, or, after 101, another protocol: reading on could
		// hang, and a later answer must not be taken for the next request's.
		w.interrupt(c)
		return false, nil
	}
	ended := x.readBody(c, a)
	if !x.attempt.Succeeded() {
		w.interrupt(c) // a receiver that refuses need not read on
	}
	w.wait()
	if w.err == nil {
		x.attempt.Timings.FirstByte = max(answered.Sub(w.at), 0)
	}
	return ended && w.err == nil && a.keep && c.br.Buffered() == 0, nil
}

// writing is a request on its way out. Its other fields may be read once it is
// over: after wait or interrupt.
type writing struct {
	done chan struct{} // nil when the write was over at once
	n    int
	err  error
	at   time.Time // when the last byte was written
}

// broke reports whether the connection broke under the write.
func (w *writing) broke() bool { return w.err != nil && !isTimeout(w.err) }

// wait returns when the write is over; the connection's deadline bounds it.
func (w *writing) wait() {
	if w.done != nil {
		<-w.done
	}
}

// interrupt ends the write; the connection cannot be used again unless it was
// over already.
func (w *writing) interrupt(c *conn) {
	if w.done == nil {
		return
	}
	select {
	case <-w.done:
	default:
		c.SetWriteDeadline(longAgo)
		<-w.done
	}
}

// enter asks the gate; leave follows when it says yes.
func (x *exchange) enter() bool { return x.request.Gate == nil || x.request.Gate.Enter() }

func (x *exchange) leave() {
	if x.request.Gate != nil {
		x.request.Gate.Leave()
	}
}

// mayDial asks the gate before a connection is made, which the receiver notices.
func (x *exchange) mayDial() error {
	if !x.enter() {
		return errShut
	}
	x.leave()
	return nil
}

// write sends the request and leaves the gate. One that fits every buffer goes out
// at once; a larger one from a goroutine, so that a receiver which answers before it
// has read all is heard.
func (x *exchange) write(c *conn, head []byte) *writing {
	w := &x.out
	*w = writing{}
	if len(head)+len(x.request.Body) <= smallRequest {
		w.put(c, x.leave, append(head, x.request.Body...))
		return w
	}
	w.done = make(chan struct{})
	go func() {
		defer close(w.done)
		w.put(c, x.leave, head, x.request.Body)
	}()
	return w
}

// put writes the parts, as far as the connection takes them, and calls begun after
// the first one, which is small.
func (w *writing) put(c *conn, begun func(), parts ...[]byte) {
	for i, part := range parts {
		var n int
		n, w.err = c.Conn.Write(part)
		w.n += n
		if i == 0 {
			begun()
		}
		if w.err != nil {
			break
		}
	}
	w.at = time.Now()
	if w.broke() {
		// Only what came before the break can still be read.
		c.SetReadDeadline(w.at.Add(afterBreak))
	}
}

// take records the answer: from here on the attempt has one.
func (x *exchange) take(came *answer) {
	a := &x.attempt
	a.Duration = time.Since(x.began)
	a.Status = came.status
	a.Class, a.Detail = classify(came)
	a.Headers = headersOf(came)
	a.RetryAfter = retryAfter(came, x.client.wall)
}

// readBody keeps the beginning of the answer's body, and reports whether the
// body ended within what is read of it. Whatever happens here does not change
// the attempt's class.
func (x *exchange) readBody(c *conn, came *answer) (ended bool) {
	a := &x.attempt
	c.left = math.MaxInt64 // the body has bounds of its own
	body := came.body
	switch {
	case came.unframed && a.Succeeded(): // its end may never come, and says nothing more
		body = io.LimitReader(body, int64(c.br.Buffered()))
	case came.unframed:
		if soon := time.Now().Add(unframedTime); soon.Before(x.deadline) {
			c.SetReadDeadline(soon)
		}
	}
	buffer := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	b, n := (*buffer)[:posthorn.MaxSnippet+1], 0
	var err error
	for err == nil && n < len(b) {
		var m int
		m, err = body.Read(b[n:])
		n += m
	}
	limit := posthorn.MaxSnippet
	if a.Succeeded() {
		limit = posthorn.MaxSuccessSnippet
	}
	ended = err == io.EOF
	switch {
	case n > limit:
		a.BodyNote = "truncated"
	case ended:
		// Nothing to note.
	case isTimeout(err):
		a.BodyNote = "timeout"
	default:
		a.BodyNote = "error"
	}
	if n > 0 {
		a.Snippet = text(b[:n], limit)
	}
	return ended && n <= posthorn.MaxSnippet
}
