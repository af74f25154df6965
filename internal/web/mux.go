package web

import (
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"

	"github.com/posthorn/posthorn"
)

// MaxURI bounds the request target, in bytes.
const MaxURI = 8192

// Mux routes by method and path like [http.ServeMux], and answers what it does
// not know in the manner of the API: problems for unknown routes and methods,
// 204 with Allow for OPTIONS. It never redirects.
type Mux struct {
	mux http.ServeMux
	// plain are the routes that are a path without wildcards. They go before all
	// others in a ServeMux too, and need no search.
	plain map[plainRoute]plainHandler
}

type plainRoute struct{ method, path string }

type plainHandler struct {
	pattern string
	handler Handler
}

// Handle registers a handler for a pattern with a method, as "GET /events/{id}".
// It panics on a pattern that conflicts with an earlier one. All patterns are
// registered before the first request.
func (m *Mux) Handle(pattern string, h Handler) {
	m.mux.Handle(pattern, h)
	method, path, _ := strings.Cut(pattern, " ")
	if strings.HasPrefix(path, "/") && !strings.HasSuffix(path, "/") && !strings.Contains(path, "{") {
		if m.plain == nil {
			m.plain = make(map[plainRoute]plainHandler)
		}
		m.plain[plainRoute{method, path}] = plainHandler{pattern, h}
	}
}

func (m *Mux) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if len(r.RequestURI) > MaxURI {
		WriteProblem(w, r, &Problem{
			Type: TypeURI("uri_too_long"), Title: "URL too long", Status: http.StatusRequestURITooLong,
			Detail: fmt.Sprintf("The URL is longer than %d bytes; shorten its query.", MaxURI),
		})
		return
	}
	// A path that needs another way of escaping than usual is not compared as text.
	if p, ok := m.plain[plainRoute{r.Method, r.URL.Path}]; ok && r.URL.RawPath == "" {
		exchangeOf(r.Context()).route, r.Pattern = p.pattern, p.pattern
		p.handler.ServeHTTP(w, r)
		return
	}
	if !cleanPath(r.URL.Path) {
		WriteError(w, r, notFound())
		return
	}
	h, pattern := m.mux.Handler(r)
	if pattern == "" {
		m.unmatched(w, r, h)
		return
	}
	exchangeOf(r.Context()).route = pattern
	m.mux.ServeHTTP(w, r)
}

// cleanPath reports whether ServeMux would take the path as it is. It would
// redirect other ones, with a page of HTML.
func cleanPath(p string) bool {
	clean := path.Clean(p)
	return p == clean || p == clean+"/"
}

func notFound() error {
	return posthorn.Errorf(posthorn.NotFound, "There is no such route. The API lies under /v2.3/webhooks; its description is at /openapi.yaml and /docs.")
}

// unmatched answers a request that no pattern matches. h is what ServeMux would
// answer: its Allow header tells which methods the path has.
func (m *Mux) unmatched(w http.ResponseWriter, r *http.Request, h http.Handler) {
	var probe probe
	h.ServeHTTP(&probe, r)
	allow := probe.header.Get("Allow")
	if allow == "" {
		WriteError(w, r, notFound())
		return
	}
	methods := append(strings.Split(allow, ", "), http.MethodOptions)
	slices.Sort(methods)
	allow = strings.Join(slices.Compact(methods), ", ")
	w.Header().Set("Allow", allow)
	if r.Method == http.MethodOptions {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	WriteProblem(w, r, &Problem{
		Type: TypeURI("method_not_allowed"), Title: "Method not allowed", Status: http.StatusMethodNotAllowed,
		Detail: "This route does not know the method; it knows " + allow + ".",
	})
}

// probe takes a handler's headers and drops the rest.
type probe struct{ header http.Header }

func (p *probe) Header() http.Header {
	if p.header == nil {
		p.header = http.Header{}
	}
	return p.header
}
func (p *probe) Write(b []byte) (int, error) { return len(b), nil }
func (p *probe) WriteHeader(int)             {}
