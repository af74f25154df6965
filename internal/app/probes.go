package app

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/pprof"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/posthorn/posthorn/internal/store"
)

// readiness holds why the node should get no traffic; nil when it should.
type readiness struct {
	mu     sync.Mutex
	why    error
	wasSet bool
}

func (r *readiness) set(why error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.why, r.wasSet = why, true
}

func (r *readiness) get() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.wasSet {
		return fmt.Errorf("starting")
	}
	return r.why
}

// probes answers /healthz and /readyz and passes the rest on. A ServeMux would
// answer odd paths by redirects of its own before the API's problems are reached.
func (n *node) probes(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		read := r.Method == http.MethodGet || r.Method == http.MethodHead
		switch {
		case read && r.URL.Path == "/healthz":
			healthz(w, r)
		case read && r.URL.Path == "/readyz":
			n.readyz(w, r)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// stayReachable has /readyz say 503 and serves on as before, until a load balancer
// has had the time to ask: what it sends before it knows must not meet a closed
// listener.
func (n *node) stayReachable() {
	n.ready.set(errors.New("draining"))
	n.leaving.Store(true)
	time.Sleep(n.cfg.ShutdownDelay)
}

// parting has every answer of a node that is about to go end its connection: so
// those that clients keep are moved while there is time, and are not cut off under a
// request when the listener closes. Over HTTP/2 it makes a GOAWAY.
func (n *node) parting(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n.leaving.Load() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// healthz says that the process runs. It asks nothing of anybody, so that a
// slow store does not get the process killed.
func healthz(w http.ResponseWriter, _ *http.Request) { plain(w, http.StatusOK, "ok") }

// readyz says whether this node should get traffic, and if not, why.
func (n *node) readyz(w http.ResponseWriter, r *http.Request) {
	if err := n.ready.get(); err != nil {
		plain(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	if s, ok := n.standing(); ok {
		n.log.Warn("not ready", "what", s.What, "for", s.For)
		plain(w, http.StatusServiceUnavailable, fmt.Sprintf("the %s has not moved for %d seconds", s.What, int(s.For.Seconds())))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
	defer cancel()
	if err := n.store.Ping(ctx); err != nil {
		n.log.Warn("not ready", "err", err)
		plain(w, http.StatusServiceUnavailable, trouble(err))
		return
	}
	text := "ready"
	if err := n.clockTrouble(); err != nil {
		text += "; but " + err.Error()
	}
	if err := n.files.Trouble(); err != nil {
		text += "; but " + err.Error()
	}
	if n.oidc != nil {
		// Tokens of ours are good all the same: no reason to take the node away.
		if err := n.oidc.Trouble(); err != nil {
			text += "; but " + err.Error()
		}
	}
	plain(w, http.StatusOK, text)
}

// standsAfter is how long a part of the node may have work and not move.
const standsAfter = 4 * time.Second

// standing is what has not moved for longest, if that is too long.
func (n *node) standing() (longest store.Standing, ok bool) {
	parts := n.engine.Standing()
	if m, ok := n.store.(store.Mover); ok {
		parts = append(parts, m.Standing()...)
	}
	for _, s := range parts {
		if s.For > max(longest.For, standsAfter) {
			longest, ok = s, true
		}
	}
	return longest, ok
}

func plain(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	fmt.Fprintln(w, text)
}

// opsHandler answers on the operator's listener: figures, and profiles if they
// are switched on.
func (n *node) opsHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(n.metrics.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", healthz)
	if n.cfg.Pprof {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	return mux
}
