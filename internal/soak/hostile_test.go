package soak

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/posthorn/posthorn/internal/proof"
)

const hostileName = "mallory"

// mallory is what the hostile tenant does, from an address of its own and at a pace that
// costs it little: it takes what it can get and holds on to it.
func (w *world) mallory() []act {
	refusal := []int{http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusConflict}
	return []act{
		{name: "hostile: endpoints", every: time.Minute, do: w.reopen, may: refusal},
		{name: "hostile: events for slow receivers", every: time.Second, do: w.feed("cases.updated", 3), may: refusal},
		{name: "hostile: events for costly filters", every: time.Second, do: w.feed("cases.expenses.created", 5), may: refusal},
		{name: "hostile: filters to be tried", every: 5 * time.Second, do: w.tryFilter, may: refusal},
		{name: "hostile: bodies that drip", every: 10 * time.Second, do: w.dripBody},
		{name: "hostile: answers that nobody reads", every: 15 * time.Second, do: w.readNothing},
		{name: "hostile: unknown tokens", every: time.Second, do: w.guess},
		{name: "hostile: idle connections", every: 20 * time.Second, do: w.idle},
		{name: "hostile: streams that nobody reads", every: 15 * time.Second, do: w.readNoStream},
		{name: "hostile: exports that nobody reads", every: 20 * time.Second, do: w.readNoExport, may: refusal},
	}
}

// reopen deletes the hostile endpoints with all that waits for them, and makes new ones.
func (w *world) reopen(ctx context.Context) error {
	if err := w.closeHostile(ctx); err != nil {
		return err
	}
	for _, k := range nasty {
		name := fmt.Sprintf("%s-%d", k, w.pick(1<<30))
		e, err := w.openAs(ctx, w.hostile, name, k)
		if err != nil {
			return err
		}
		w.mu.Lock()
		w.hostile.endpoints[k] = e
		w.mu.Unlock()
	}
	w.linger(time.Second)
	return nil
}

// closeHostile deletes the hostile endpoints, those too whose making was refused halfway.
func (w *world) closeHostile(ctx context.Context) error {
	w.mu.Lock()
	w.hostile.endpoints = map[kind]proof.Endpoint{}
	w.mu.Unlock()
	var made []proof.Endpoint
	if err := w.hostile.api.Call(ctx, http.MethodGet, "/endpoints", nil, &made); err != nil {
		return err
	}
	for _, e := range made {
		if err := w.hostile.api.Call(ctx, http.MethodDelete, "/endpoints/"+e.ID, nil, nil); err != nil {
			return err
		}
	}
	return nil
}

var hostileEvents atomic.Int64

// feed publishes events with much to look through.
func (w *world) feed(kind string, n int) func(context.Context) error {
	list := strings.Repeat("1,", 999) + "1"
	return func(ctx context.Context) error {
		for range n {
			number := int(hostileEvents.Add(1))
			id := fmt.Sprintf("m-%d", number)
			w.ledger.add(hostileName, id, number)
			deliveries, err := post(ctx, w.hostile.api, fmt.Appendf(nil, `{"id":%q,"type":%q,"data":{"list":[%s],"text":"%s"}}`, id, kind, list, strings.Repeat("ab", 2000)))
			if err != nil {
				return err
			}
			w.ledger.accept(hostileName, id, deliveries)
			w.linger(50 * time.Millisecond)
		}
		return nil
	}
}

func (w *world) tryFilter(ctx context.Context) error {
	w.mu.Lock()
	e, ok := w.hostile.endpoints[dear]
	w.mu.Unlock()
	if !ok {
		return nil
	}
	err := w.hostile.api.Call(ctx, http.MethodPost, "/endpoints/"+e.ID+"/filter/test", []byte(`{"filter":"data.list.all(x, size(data.text) > 0)"}`), nil)
	if s, ok := err.(*proof.Status); ok && s.Code == http.StatusNotFound { // it was just deleted
		return nil
	}
	return err
}

// dials opens connections of the hostile tenant's and begins each in the same way.
func (w *world) dials(ctx context.Context, n int, begins string) (conns []net.Conn, err error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(hostileAddress)}}
	for range n {
		c, err := d.DialContext(ctx, "tcp", strings.TrimPrefix(w.server.URL(), "http://"))
		if err != nil {
			return conns, err
		}
		conns = append(conns, c)
		if err := c.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
			return conns, err
		}
		_, _ = io.WriteString(c, begins) // the service may have closed it
	}
	return conns, nil
}

func hangUp(conns []net.Conn) {
	for _, c := range conns {
		c.Close()
	}
}

// head is a request up to its body.
func (w *world) head(method, path, more string) string {
	return method + " " + proof.Base + path + " HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer " + w.hostile.api.Token + "\r\n" + more + "\r\n"
}

// dripBody sends bodies byte by byte, until the service has had enough.
func (w *world) dripBody(ctx context.Context) error {
	head := w.head("POST", "/events", "Content-Type: application/json\r\nContent-Length: 200000\r\n") + "{"
	conns, err := w.dials(ctx, 8, head)
	defer hangUp(conns)
	for range 150 {
		if w.linger(500 * time.Millisecond); err != nil || w.isOver() {
			return err
		}
		open := false
		for _, c := range conns {
			_, err := io.WriteString(c, " ")
			open = open || err == nil
		}
		if !open {
			return nil
		}
	}
	return nil
}

// readNothing asks for big lists, again and again, and reads no answer.
func (w *world) readNothing(ctx context.Context) error {
	return w.unread(ctx, strings.Repeat(w.head("GET", "/deliveries?limit=250", ""), 20), 70*time.Second)
}

func (w *world) readNoStream(ctx context.Context) error {
	return w.unread(ctx, w.head("GET", "/stream", ""), 30*time.Second)
}

func (w *world) readNoExport(ctx context.Context) error {
	var made struct {
		ID string `json:"id"`
	}
	if err := w.hostile.api.Call(ctx, http.MethodPost, "/exports", []byte(`{}`), &made); err != nil {
		return err
	}
	return w.unread(ctx, w.head("GET", "/exports/"+made.ID+"/content", ""), 70*time.Second)
}

// unread sends requests on some connections and holds these.
func (w *world) unread(ctx context.Context, requests string, d time.Duration) error {
	conns, err := w.dials(ctx, 3, requests)
	defer hangUp(conns)
	w.linger(d)
	return err
}

// guess tries tokens that nobody has.
func (w *world) guess(ctx context.Context) error {
	for n := range 5 {
		a := w.hostile.api
		a.Token = fmt.Sprintf("pht_%032d", n)
		s, ok := a.Call(ctx, http.MethodGet, "/endpoints", nil, nil).(*proof.Status)
		if !ok || s.Code != http.StatusUnauthorized && s.Code != http.StatusTooManyRequests {
			return fmt.Errorf("an unknown token was answered %v, want 401 or 429", s)
		}
	}
	return nil
}

// idle opens connections and sends nothing, or half a head.
func (w *world) idle(ctx context.Context) error {
	silent, err := w.dials(ctx, 30, "")
	defer hangUp(silent)
	if err != nil {
		return err
	}
	halves, err := w.dials(ctx, 30, "GET / HTTP/1.1\r\nHost: ")
	defer hangUp(halves)
	w.linger(25 * time.Second)
	return err
}
