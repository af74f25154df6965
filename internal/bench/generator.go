package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/proof"
	"github.com/posthorn/posthorn/webhook"
)

const (
	// maxEndpoints is what the digits of an event type can number.
	maxEndpoints = 10_000
	typePrefix   = "cases.tasks.bench"
	// numberKey is how the receiver finds an event's number.
	numberKey   = `"n":"`
	numberWidth = 9
	minBodySize = 64
)

// eventType is the type that endpoint i subscribes to: an open namespace of the
// built-in catalogue. All are equally long, so that a request can be patched.
func eventType(i int) string { return fmt.Sprintf("%s%04d", typePrefix, i) }

// data is a case of about the given size in bytes; its number is patched in.
func data(size int) string {
	var b strings.Builder
	b.WriteString("{" + numberKey + strings.Repeat("0", numberWidth) + `"`)
	for i := 0; size-b.Len() > 100; i++ {
		fmt.Fprintf(&b, `,"task_%02d":{"id":%d,"title":"Sign the lease","due":"2026-05-%02d","done":false}`, i, 59000+i, 1+i%28)
	}
	if pad := size - b.Len() - len(`,"note":""}`); pad >= 0 {
		b.WriteString(`,"note":"` + strings.Repeat("x", pad) + `"`)
	}
	b.WriteByte('}')
	return b.String()
}

// request is how a worker renders its requests; each worker has its own.
type request struct {
	address string
	// render returns the bytes for events first, first+1…, valid until the next call.
	render func(first int) []byte
	// want is the status of success.
	want int
}

// publishing returns a maker of requests to the service. Body and head are
// rendered once; only numbers and types are patched.
func publishing(c Config, api proof.API) func() request {
	host := strings.TrimPrefix(api.URL, "http://")
	var body bytes.Buffer
	var offsets []int // where each event's type number begins
	event := `{"type":"` + typePrefix
	rest := `0000","data":` + data(c.BodySize) + `}`
	path := "/events"
	if c.Batch > 1 {
		path = "/events/batch"
		body.WriteString(`{"events":[`)
	}
	for i := range c.Batch {
		if i > 0 {
			body.WriteByte(',')
		}
		body.WriteString(event)
		offsets = append(offsets, body.Len())
		body.WriteString(rest)
	}
	if c.Batch > 1 {
		body.WriteString(`]}`)
	}
	head := fmt.Sprintf("POST %s%s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n",
		proof.Base, path, host, api.Token, body.Len())
	whole := head + body.String()
	toNumber := strings.Index(rest, numberKey) + len(numberKey)
	return func() request {
		b := []byte(whole)
		return request{address: host, want: http.StatusAccepted, render: func(first int) []byte {
			for i, at := range offsets {
				at += len(head)
				digits(b[at:at+4], (first+i)%c.Endpoints)
				digits(b[at+toNumber:at+toNumber+numberWidth], first+i)
			}
			return b
		}}
	}
}

// delivering returns a maker of signed requests straight to the receiver, as the
// service would send them.
func delivering(c Config, address string) func() request {
	key, at := make([]byte, 32), time.Now()
	signature := "v1," + base64.StdEncoding.EncodeToString(key)
	body := string(posthorn.AppendBody(nil, strings.Repeat("0", posthorn.GeneratedRefLength), eventType(0), at, []byte(data(c.BodySize))))
	head := fmt.Sprintf("POST /0 HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nUser-Agent: Posthorn-bench\r\nWebhook-Id: %s\r\nWebhook-Timestamp: %d\r\nWebhook-Signature: ",
		address, body[posthorn.BodyRefOffset:posthorn.BodyRefOffset+posthorn.GeneratedRefLength], at.Unix())
	middle := fmt.Sprintf("\r\nContent-Length: %d\r\n\r\n", len(body))
	return func() request {
		b := []byte(head + signature + middle + body)
		content := b[len(b)-len(body):]
		number := bytes.Index(content, []byte(numberKey)) + len(numberKey)
		return request{address: address, want: http.StatusOK, render: func(first int) []byte {
			digits(content[number:number+numberWidth], first)
			id := content[posthorn.BodyRefOffset : posthorn.BodyRefOffset+posthorn.GeneratedRefLength]
			webhook.Sign(b[len(head):len(head)], string(id), at, content, key)
			return b
		}}
	}
}

// digits writes n in decimal with leading zeros over all of b.
func digits(b []byte, n int) {
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = byte('0' + n%10)
		n /= 10
	}
}

// number reads what digits wrote; -1 when it is not there.
func number(body []byte) int {
	i := bytes.Index(body, []byte(numberKey))
	if i < 0 || len(body) < i+len(numberKey)+numberWidth {
		return -1
	}
	n, err := strconv.Atoi(string(body[i+len(numberKey):][:numberWidth]))
	if err != nil {
		return -1
	}
	return n
}

// generator publishes over kept connections. It speaks HTTP/1.1 itself: it
// shares the machine's processors with what it measures.
type generator struct {
	config  Config
	ledger  *ledger
	request func() request
}

// run publishes for the load's duration and returns when all is answered.
func (g *generator) run(ctx context.Context) error {
	var wg sync.WaitGroup
	errs := make(chan error, g.config.Conns)
	for range g.config.Conns {
		wg.Go(func() {
			w := worker{generator: g, request: g.request()}
			if err := w.run(ctx); err != nil {
				errs <- err
			}
			w.close()
		})
	}
	wg.Wait()
	g.ledger.lastSent = g.ledger.now()
	select {
	case err := <-errs:
		return err
	default:
		return ctx.Err()
	}
}

type worker struct {
	*generator
	request request
	conn    net.Conn
	answers *bufio.Reader
	faults  int // connections lost in a row
}

func (w *worker) run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	c, l := w.config, w.ledger
	for ctx.Err() == nil {
		first := int(l.next.Add(int64(c.Batch))) - c.Batch
		due := l.now()
		if c.Rate > 0 {
			due = int64(float64(first) / c.Rate * float64(time.Second))
			if wait := due - l.now(); wait > 0 && due < int64(c.Duration) {
				timer.Reset(time.Duration(wait))
				select {
				case <-timer.C:
				case <-ctx.Done():
					return nil
				}
			}
		}
		if due >= int64(c.Duration) || first+c.Batch > len(l.due) {
			return nil
		}
		for i := range c.Batch {
			l.due[first+i] = due
		}
		status, err := w.exchange(w.request.render(first))
		switch now := l.now(); {
		case err != nil:
			l.refuse(0, c.Batch)
			if w.faults++; w.faults > 3 {
				return err
			}
			w.close()
			continue
		case status != w.request.want:
			l.refuse(status, c.Batch)
			if status != http.StatusServiceUnavailable && status != http.StatusTooManyRequests {
				return fmt.Errorf("answered %d, want %d", status, w.request.want)
			}
		default:
			for i := range c.Batch {
				l.accepted[first+i] = now
			}
		}
		w.faults = 0
	}
	return nil
}

// exchange sends one request and reads its answer.
func (w *worker) exchange(b []byte) (status int, err error) {
	if w.conn == nil {
		if w.conn, err = net.DialTimeout("tcp", w.request.address, 5*time.Second); err != nil {
			return 0, err
		}
		w.answers = bufio.NewReader(w.conn)
	}
	if _, err := w.conn.Write(b); err != nil {
		return 0, err
	}
	resp, err := http.ReadResponse(w.answers, nil)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return 0, err
	}
	if resp.Close {
		w.close()
	}
	return resp.StatusCode, nil
}

func (w *worker) close() {
	if w.conn != nil {
		w.conn.Close()
		w.conn = nil
	}
}
