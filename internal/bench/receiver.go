package bench

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/posthorn/posthorn/internal/web"
)

// receiver is all endpoints of a load: a plain HTTP server that counts. Those
// that answer say 204.
type receiver struct {
	c        Config
	listener net.Listener
	server   *http.Server
	closed   chan struct{}
	ledger   atomic.Pointer[ledger]
	hanging  atomic.Int64 // requests that get no answer
	hung     atomic.Int64 // such requests so far
	buffers  sync.Pool
}

func newReceiver(c Config) (*receiver, error) {
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return nil, err
	}
	r := &receiver{c: c, listener: l, closed: make(chan struct{})}
	r.buffers.New = func() any { return new(bytes.Buffer) }
	r.server = &http.Server{Handler: web.NewHosts(c.ReceiverURL).Guarded(l, r)}
	go r.server.Serve(l) // ends with Close
	return r, nil
}

func (r *receiver) address() string { return r.listener.Addr().String() }

// url is where the node sends what is for an endpoint, of all tenants'.
func (r *receiver) url(i int) string {
	base := r.c.ReceiverURL
	if base == "" {
		base = "http://" + r.address()
	}
	return fmt.Sprintf("%s/%d", base, i)
}

// Close lets go of the requests that hang and ends the server.
func (r *receiver) Close() {
	close(r.closed)
	r.server.Close()
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	buffer := r.buffers.Get().(*bytes.Buffer)
	defer r.buffers.Put(buffer)
	buffer.Reset()
	path := req.URL.Path
	endpoint, err := strconv.Atoi(path[bytes.LastIndexByte([]byte(path), '/')+1:])
	if err != nil || req.Header.Get("Webhook-Signature") == "" {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	if _, err := buffer.ReadFrom(req.Body); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	endpoint %= r.c.perTenant()
	switch good := r.c.good(); {
	case endpoint >= good+r.c.Fail/r.c.Tenants:
		r.hung.Add(1)
		r.hanging.Add(1)
		defer r.hanging.Add(-1)
		select {
		case <-r.closed:
		case <-req.Context().Done():
		}
	case endpoint >= good:
		w.WriteHeader(http.StatusInternalServerError)
	default:
		if l := r.ledger.Load(); l != nil {
			l.receive(number(buffer.Bytes()), endpoint)
		}
		w.WriteHeader(http.StatusNoContent)
	}
}
