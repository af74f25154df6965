package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// exporter writes an export in bounded memory: a page of events without bodies,
// one body, a page of deliveries. It reads in slices of a walk, and holds none while it
// writes: who does not read what it is sent keeps nobody from the store.
type exporter struct {
	s     *server
	q     *request
	right *right
	out   *bufio.Writer
	asked int // bytes written since it was last asked about the token
	count struct {
		Endpoints  int `json:"endpoints"`
		Events     int `json:"events"`
		Deliveries int `json:"deliveries"`
	}
}

const (
	exportEvents     = 250
	exportDeliveries = 50
	// exportAsk is how many bytes are written before it is asked again whether the
	// token is still good, whatever was heard.
	exportAsk = 1 << 20
	// exportStall is how long a download may stand still.
	exportStall = time.Minute
)

var errStopping = errors.New("the node stops")

// goOn is asked before each event and each page of it or of events. When a page of
// events or exportAsk bytes were written, it asks about the token even if nothing was
// heard, and whether the node stops: what is shorter is not worth cutting.
func (x *exporter) goOn(page bool) error {
	if page || x.asked >= exportAsk {
		if x.asked > 0 {
			select {
			case <-x.s.Stopping:
				return errStopping
			default:
			}
		}
		x.asked = 0
		return x.right.goesOn(true)
	}
	return x.right.goesOn(false)
}

// read runs one slice.
func (x *exporter) read(fn func(ctx context.Context) error) error {
	return x.s.Store.Walks().Slice(x.right.ctx, x.q.tenant.ID, fn)
}

func (x *exporter) write(e *store.Export) error {
	var endpoints []posthorn.Endpoint
	if err := x.read(func(ctx context.Context) (err error) {
		endpoints, err = x.s.Store.EndpointsOf(ctx, e.Tenant, "", 0)
		return err
	}); err != nil {
		return err
	}
	for i := range endpoints {
		x.count.Endpoints++
		if err := x.line("endpoint", showEndpoint(&endpoints[i])); err != nil {
			return err
		}
	}
	filter := store.EventFilter{Tenant: e.Tenant, Since: e.Since, Until: e.Until}
	page := store.Page{Limit: exportEvents}
	for {
		var events []posthorn.Event
		var next posthorn.ID
		if err := x.read(func(ctx context.Context) (err error) {
			events, next, err = x.s.Store.Events(ctx, filter, page)
			return err
		}); err != nil {
			return err
		}
		for i := range events {
			if err := x.event(&events[i]); err != nil {
				return err
			}
		}
		if err := x.flush(); err != nil {
			return err
		}
		if next == 0 {
			break
		}
		if err := x.goOn(true); err != nil {
			return err
		}
		page.Before = next
	}
	if err := x.right.goesOn(true); err != nil { // nothing may have been found as it is deleted
		return err
	}
	if err := x.line("end", x.count); err != nil {
		return err
	}
	return x.flush()
}

// event writes an event with its deliveries; one that is gone meanwhile is left
// out.
func (x *exporter) event(e *posthorn.Event) error {
	if err := x.goOn(false); err != nil {
		return err
	}
	of := store.DeliveryFilter{Tenant: e.Tenant, Event: e.ID}
	page := store.Page{Limit: exportDeliveries}
	var whole posthorn.Event
	var deliveries []posthorn.Delivery
	err := x.read(func(ctx context.Context) (err error) {
		if whole, err = x.s.Store.EventByRef(ctx, e.Tenant, e.Ref()); err == nil {
			deliveries, page.Before, err = x.s.Store.Deliveries(ctx, of, page)
		}
		return err
	})
	if isMissing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	head, err := encode(showEvent(&whole))
	if err != nil {
		return err
	}
	data := whole.Data()
	if data == nil {
		data = []byte("null")
	}
	x.count.Events++
	// data is put in as it was published, but on one line: a line break in JSON is
	// either escaped or space.
	for _, part := range [][]byte{[]byte(`{"event":`), head[:len(head)-1], []byte(`,"data":`), oneLine(data), []byte("}}\n")} {
		if err := x.put(part); err != nil {
			return err
		}
	}
	for {
		for i := range deliveries {
			x.count.Deliveries++
			if err := x.line("delivery", showDelivery(&deliveries[i])); err != nil {
				return err
			}
		}
		if page.Before == 0 {
			return x.extend()
		}
		if err := x.goOn(false); err != nil {
			return err
		}
		if err := x.read(func(ctx context.Context) (err error) {
			deliveries, page.Before, err = x.s.Store.Deliveries(ctx, of, page)
			return err
		}); err != nil {
			return err
		}
	}
}

// put writes, and counts what was written.
func (x *exporter) put(b []byte) error {
	x.asked += len(b)
	_, err := x.out.Write(b)
	return err
}

// oneLine makes line breaks spaces, in a copy if there are any.
func oneLine(data []byte) []byte {
	for i, c := range data {
		if c != '\n' && c != '\r' {
			continue
		}
		line := append([]byte(nil), data...)
		for j := i; j < len(line); j++ {
			if line[j] == '\n' || line[j] == '\r' {
				line[j] = ' '
			}
		}
		return line
	}
	return data
}

func (x *exporter) line(kind string, v any) error {
	b, err := encode(v)
	if err != nil {
		return err
	}
	return x.put(fmt.Appendf(nil, "{%q:%s}\n", kind, b))
}

func (x *exporter) flush() error {
	if err := x.extend(); err != nil {
		return err
	}
	return x.out.Flush()
}

// extend gives the download another while: the server's own limit is for answers
// of one piece.
func (x *exporter) extend() error {
	return x.right.mayWrite(exportStall)
}

// cut says at the end of what was written why there is no more. What is left in the
// buffer goes before it, so that the line is whole.
func (x *exporter) cut() {
	if why := x.right.reason(); why != "" {
		_ = x.line("cut", struct {
			Reason string `json:"reason"`
		}{why})
		_ = x.out.Flush()
	}
}
