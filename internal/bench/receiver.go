package bench

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// receiver is all endpoints of a load: a plain HTTP server that counts.
type receiver struct {
	endpoints, good, hang int
	listener              net.Listener
	server                *http.Server
	closed                chan struct{}
	ledger                atomic.Pointer[ledger]
	buffers               sync.Pool
}

// newReceiver listens on a free port of the loopback. Of the endpoints the first
// good ones answer 200, the last hang ones never, those between 500.
func newReceiver(endpoints, good, hang int) (*receiver, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &receiver{endpoints: endpoints, good: good, hang: hang, listener: l, closed: make(chan struct{})}
	r.buffers.New = func() any { return new(bytes.Buffer) }
	r.server = &http.Server{Handler: r}
	go r.server.Serve(l) // ends with Close
	return r, nil
}

func (r *receiver) address() string    { return r.listener.Addr().String() }
func (r *receiver) url(i int) string   { return fmt.Sprintf("http://%s/%d", r.address(), i) }
func (r *receiver) healthy(n int) bool { return n%r.endpoints < r.good }

// Close lets go of the requests that hang and ends the server.
func (r *receiver) Close() {
	close(r.closed)
	r.server.Close()
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	buffer := r.buffers.Get().(*bytes.Buffer)
	defer r.buffers.Put(buffer)
	buffer.Reset()
	if _, err := buffer.ReadFrom(req.Body); err != nil || req.Header.Get("Webhook-Signature") == "" {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	switch i, _ := strconv.Atoi(strings.TrimPrefix(req.URL.Path, "/")); {
	case i >= r.endpoints-r.hang:
		select {
		case <-r.closed:
		case <-req.Context().Done():
		}
	case i >= r.good:
		w.WriteHeader(http.StatusInternalServerError)
	default:
		r.ledger.Load().receive(number(buffer.Bytes()))
	}
}
