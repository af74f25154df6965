package api

import (
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-json-experiment/json"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/access"
	"github.com/posthorn/posthorn/internal/share"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/web"
)

// operation declares one route.
type operation struct {
	id, method, path string // path below Base
	tag              string
	summary          string
	description      string
	// scope is what the token must have.
	scope string
	// platformScope is what a platform's token must have instead; empty for scope.
	platformScope string
	reach         reach
	// query are the query parameters; any other is refused.
	query []param
	// headers are the request headers that mean something here, for the document.
	headers []param
	body    *bodyRule // nil: a body is not read
	// quiet: a success has a line in the access log at debug level only.
	quiet   bool
	success []success // the first is the usual one
	// failures are the codes beyond those that every operation may answer.
	failures []posthorn.Code
	handle   func(*request) (*reply, error)
	// stream answers instead of handle, with what comes bit by bit.
	stream func(http.ResponseWriter, *request) error
	// media is the type of what stream writes.
	media string
}

// reach says whose things an operation is about.
type reach uint8

const (
	// ofTenant: the token's tenant, or the one that a platform token names by
	// Posthorn-Tenant.
	ofTenant reach = iota
	// ofPublisher: like ofTenant, but the events may name the tenant.
	ofPublisher
	// ofPlatform: platform tokens only.
	ofPlatform
	// ofTenantOrAll: like ofTenant, but a platform token that names no tenant
	// reaches all of them.
	ofTenantOrAll
)

// param documents a query parameter or a header.
type param struct {
	name, doc string
	schema    *huma.Schema
}

// bodyRule says which bodies an operation takes.
type bodyRule struct {
	types []string
	limit int64
	// model is the documented form; nil when no body is needed, and then an empty
	// one or {} is taken.
	model reflect.Type
	// example is a body that works, for the document.
	example string
	// forms are those of the types that are not of the model.
	forms map[string]bodyForm
	// optional: a request without a body is taken as one with {}.
	optional bool
}

// bodyForm is what a body of another type looks like, for the document.
type bodyForm struct {
	model   reflect.Type
	example string
}

// success documents one answer.
type success struct {
	status  int
	doc     string
	model   reflect.Type // nil: no body
	headers []string
}

// What the bodies of requests that are being read or answered may hold of memory:
// whoever announces large batches and drips them takes no more than a tenant's share.
const (
	bodiesInAll    = 256 << 20
	bodiesOfTenant = 64 << 20
)

// smallBody bounds all bodies but events.
const smallBody = 64 << 10

func jsonBody[T any](example string, types ...string) *bodyRule {
	return &bodyRule{types: append([]string{typeJSON}, types...), limit: smallBody, model: reflect.TypeFor[T](), example: example}
}

// optional is for a body that may be left out.
func optional(r *bodyRule) *bodyRule {
	r.optional = true
	return r
}

// noBody is for a POST that says all by its route.
func noBody() *bodyRule { return &bodyRule{types: []string{typeJSON}, limit: smallBody} }

// request is a request that has passed the gate.
type request struct {
	*http.Request
	op        *operation
	principal *access.Principal
	// tenant is whose things this is about; zero on platform routes, and on
	// publishing until the events are read.
	tenant      posthorn.Tenant
	query       *query
	contentType string
	// body belongs to a pool: it is gone after the handler.
	body []byte
	at   time.Time
	once *store.Once
	// party is whom the request counts for, visit what it counts as.
	party share.Party
	visit web.Visit
}

// change is what accompanies everything that the request changes.
func (q *request) change() store.Change {
	return store.Change{Actor: q.principal.Actor, At: q.at, Once: q.once}
}

// reply is a successful answer.
type reply struct {
	status int
	body   []byte // JSON, or nil for none
	// pieces writes the body, where it may be large.
	pieces   func(*pieces) error
	location string // path below Base
	etag     string
	link     string
	// retryAfter says when to ask again; zero for nothing.
	retryAfter time.Duration
	// secret answers hold what must not be kept by caches.
	secret bool
	// preferred: Prefer: return=representation was followed.
	preferred bool
	// repeated: the answer was given before, for the same Idempotency-Key.
	repeated bool
}

// answer is the envelope of everything.
type answer[T any] struct {
	Data T `json:"data"`
}

// list is the envelope of lists with cursors.
type list[T any] struct {
	Data       []T     `json:"data"`
	NextCursor *string `json:"next_cursor" doc:"Pass it as cursor for the next page; null on the last one."`
}

// encode renders what the API shows. A failure is a fault of ours.
func encode(v any) ([]byte, error) {
	b, err := json.Marshal(v, json.Deterministic(true)) // maps in order: the same answer twice is the same bytes
	if err != nil {
		return nil, fmt.Errorf("api: encode %T: %w", v, err)
	}
	return b, nil
}

// ok makes the usual reply of v in its envelope.
func ok[T any](status int, v T) (*reply, error) {
	b, err := encode(answer[T]{v})
	return &reply{status: status, body: b}, err
}

// serve is the way of every request: who asks, may they, is the request well
// formed, was it answered before, and only then the operation itself. Nothing
// of the body is read before the token is known.
func (s *server) serve(op *operation) web.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		q := &request{Request: r, op: op, at: s.Now().UTC()}
		if op.quiet {
			web.Quiet(r.Context())
		}
		if err := s.admit(w, q); err != nil {
			return err
		}
		if err := q.enter(); err != nil {
			return err
		}
		defer q.visit.Leave()
		if err := web.Accepts(r, op.contentType()); err != nil {
			return err
		}
		var err error
		if q.query, err = parseQuery(r.URL.RawQuery, op.query); err != nil {
			return err
		}
		if op.body != nil {
			release, err := s.read(q)
			if err != nil {
				if op.method == http.MethodPatch { // RFC 5789 asks for it beside a 415
					w.Header().Set("Accept-Patch", strings.Join(op.body.types, ", "))
				}
				return err
			}
			defer release()
			q.visit.Received()
		}
		if op.stream != nil {
			return storeError(op.stream(w, q))
		}
		rep, err := s.answerOnce(q)
		if err != nil {
			return storeError(err)
		}
		return s.write(w, q, rep)
	}
}

// contentType is that of a success.
func (op *operation) contentType() string {
	switch {
	case op.media != "":
		return op.media
	case op.stream != nil:
		return typeEventStream
	}
	return typeJSON
}

// admit checks token, scope and reach.
func (s *server) admit(w http.ResponseWriter, q *request) error {
	client := web.ClientAddr(q.Request, s.TrustedProxies)
	web.Annotate(q.Context(), slog.String("client", client.String()))
	p, err := s.Access.Authenticate(q.Context(), q.Header["Authorization"], client)
	if err != nil {
		if posthorn.ErrorCode(err) == posthorn.Unauthorized {
			challenge := `Bearer`
			if len(q.Header["Authorization"]) > 0 {
				challenge = `Bearer error="invalid_token"`
			}
			w.Header().Set("WWW-Authenticate", challenge)
		}
		return storeError(err)
	}
	q.principal = p
	web.Known(q.Context())
	web.Annotate(q.Context(), slog.String("token", p.TokenRef))
	if err := web.CheckSingle(q.Header); err != nil {
		return err
	}
	if scope := q.op.scopeOf(p); !p.Has(scope) {
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer error="insufficient_scope", scope=%q`, scope))
		return posthorn.Errorf(posthorn.Forbidden, "This needs a token with the scope %s.", scope)
	}
	if q.op.reach == ofPlatform {
		if !p.Platform {
			return posthorn.Errorf(posthorn.Forbidden, "This needs a token of the platform; this one belongs to a tenant.")
		}
		return nil
	}
	return s.chooseTenant(q)
}

// scopeOf is the scope that a principal must have.
func (op *operation) scopeOf(p *access.Principal) string {
	if p.Platform && op.platformScope != "" {
		return op.platformScope
	}
	return op.scope
}

// tenantHeader names the tenant for platform tokens.
const tenantHeader = "Posthorn-Tenant"

func (s *server) chooseTenant(q *request) error {
	named := q.Header[tenantHeader]
	if !q.principal.Platform {
		q.tenant = q.principal.Tenant
		if len(named) == 1 && named[0] != q.tenant.Name {
			return posthorn.Errorf(posthorn.Forbidden, "The token belongs to another tenant than the header %s names.", tenantHeader)
		}
		return nil
	}
	if len(named) == 0 {
		if q.op.reach == ofPublisher || q.op.reach == ofTenantOrAll {
			return nil
		}
		return posthorn.Errorf(posthorn.Malformed, "A platform token must name the tenant by the header %s.", tenantHeader)
	}
	t, err := s.tenantChosen(q, named[0])
	if err != nil {
		return err
	}
	q.tenant = t
	return nil
}

// read takes the body in.
func (s *server) read(q *request) (release func(), err error) {
	rule := q.op.body
	// curl -X POST -d '' sends a type without a body.
	if rule.model != nil && !rule.optional || q.ContentLength != 0 {
		if q.contentType, err = mediaType(q.Request, rule.types); err != nil {
			return nil, err
		}
	}
	if q.body, release, err = web.ReadBody(q.Request, rule.limit, s.bodies, q.party); err != nil {
		return nil, err
	}
	if rule.model == nil && len(q.body) > 0 {
		in, err := decode(q.body, &struct{}{})
		if err == nil {
			err = in.err()
		}
		if err != nil {
			release()
			return nil, err
		}
	}
	return release, nil
}

// write sends the answer. The error is for one that has not begun.
func (s *server) write(w http.ResponseWriter, q *request, rep *reply) error {
	if rep.pieces != nil {
		return s.writePieces(w, q, rep)
	}
	release, err := s.holdAnswer(q, len(rep.body))
	if err != nil {
		return err
	}
	defer release()
	s.head(w, rep)
	if rep.body == nil {
		w.WriteHeader(rep.status)
		return nil
	}
	web.WriteJSON(w, rep.status, rep.body)
	return nil
}

// head sets the answer's headers.
func (s *server) head(w http.ResponseWriter, rep *reply) {
	h := w.Header()
	if rep.location != "" {
		h.Set("Location", s.PublicURL+Base+rep.location)
	}
	if rep.etag != "" {
		h.Set("ETag", rep.etag)
	}
	if rep.link != "" {
		h.Set("Link", rep.link)
	}
	if rep.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(rep.retryAfter.Seconds())))
	}
	if rep.secret {
		h.Set("Cache-Control", "no-store")
	}
	if rep.preferred {
		h.Set("Preference-Applied", "return=representation")
	}
	if rep.repeated {
		h.Set("Idempotent-Replayed", "true")
	}
}
