package api

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/access"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/webhook"
)

// The documented requests.
const (
	createExample = `{
  "url": "https://partner.example.com/webhooks/xpath",
  "events": ["cases.*", "assignments.*"],
  "description": "Partner production endpoint"
}`
	updateExample = `{"status": "paused", "events": ["cases.*"]}`
)

func (s *server) endpointOperations() []*operation {
	return []*operation{{
		id: "list-endpoints", method: "GET", path: "/endpoints", tag: "Endpoints", scope: access.ScopeRead,
		summary:     "List webhook endpoints",
		description: "All endpoints of the tenant, newest first. With limit it comes in pages; the Link header leads to the next.",
		query: []param{
			{"limit", "Endpoints on a page; all of them when left out.", limitSchema(nil)},
			{"cursor", "As in the Link header of the page before.", stringSchema()},
		},
		success: []success{{status: 200, doc: "The endpoints.", model: reflect.TypeFor[answer[[]Endpoint]](), headers: []string{"Link"}}},
		handle:  s.listEndpoints,
	}, {
		id: "create-endpoint", method: "POST", path: "/endpoints", tag: "Endpoints", scope: access.ScopeWrite,
		summary:     "Create webhook endpoint",
		description: "The answer is the only one that shows the secret, with which the receiver verifies signatures. At most 10 endpoints of a tenant have the same url, its query, the case of its host and a default port aside; one more is 409.",
		body:        jsonBody[EndpointCreate](createExample),
		success:     []success{{status: 201, doc: "The endpoint, with its secret.", model: reflect.TypeFor[answer[CreatedEndpoint]](), headers: []string{"Location", "ETag"}}},
		failures:    []posthorn.Code{posthorn.Conflict},
		handle:      s.createEndpoint,
	}, {
		id: "get-endpoint", method: "GET", path: "/endpoints/{webhookId}", tag: "Endpoints", scope: access.ScopeRead,
		summary:  "Get webhook endpoint",
		success:  []success{{status: 200, doc: "The endpoint.", model: reflect.TypeFor[answer[Endpoint]](), headers: []string{"ETag"}}},
		failures: []posthorn.Code{posthorn.NotFound},
		handle:   s.getEndpoint,
	}, {
		id: "update-endpoint", method: "PATCH", path: "/endpoints/{webhookId}", tag: "Endpoints", scope: access.ScopeWrite,
		summary:     "Update webhook endpoint",
		description: "Changes what the body names and leaves the rest. Pausing holds deliveries, it drops none; once this is answered, no new attempt starts. A url that 10 other endpoints of the tenant have is 409.",
		headers:     []param{ifMatch("endpoint has")},
		body:        jsonBody[EndpointUpdate](updateExample, "application/merge-patch+json"),
		success:     []success{{status: 200, doc: "The endpoint.", model: reflect.TypeFor[answer[Endpoint]](), headers: []string{"ETag"}}},
		failures:    []posthorn.Code{posthorn.NotFound, posthorn.Conflict, posthorn.PreconditionFailed},
		handle:      s.updateEndpoint,
	}, {
		id: "delete-endpoint", method: "DELETE", path: "/endpoints/{webhookId}", tag: "Endpoints", scope: access.ScopeWrite,
		summary:     "Delete webhook endpoint",
		description: "Cancels what waits to be delivered. With Prefer: return=representation the answer is 200 with a body instead of a bare 204.",
		headers:     []param{ifMatch("endpoint has"), preferParam},
		success:     deleted,
		failures:    []posthorn.Code{posthorn.NotFound, posthorn.PreconditionFailed},
		handle:      s.deleteEndpoint,
	}}
}

func (s *server) listEndpoints(q *request) (*reply, error) {
	limit := q.query.limit(0)
	before := s.place(q)
	if q.query.has("cursor") && limit == 0 {
		limit = defaultLimit
	}
	if err := q.query.err(); err != nil {
		return nil, err
	}
	if limit == 0 {
		return s.allEndpoints(q)
	}
	all, err := s.Store.EndpointsOf(q.Context(), q.tenant.ID, before, limit+1) // one more tells whether there is a next page
	if err != nil {
		return nil, err
	}
	var link string
	if len(all) > limit {
		all = all[:limit]
		link = s.nextLink(q, limit, s.makeCursor(q, all[limit-1].Ref))
	}
	return &reply{status: http.StatusOK, link: link, pieces: func(p *pieces) error {
		if err := writeRows(p, all, showEndpoint, nil); err != nil {
			return err
		}
		return p.text(`}`)
	}}, nil
}

// endpointsAtOnce is how many rows of a whole list are in memory.
const endpointsAtOnce = 100

// allEndpoints lists them without a limit. The answer may be large, so it is read as it
// is written; what is made meanwhile is not in it. Each part is a slice of a walk, so that
// many who read much do not keep another tenant's reads waiting.
func (s *server) allEndpoints(q *request) (*reply, error) {
	read := func(before string) (rows []posthorn.Endpoint, err error) {
		err = s.Store.Walks().Slice(q.Context(), q.tenant.ID, func(ctx context.Context) error {
			rows, err = s.Store.EndpointsOf(ctx, q.tenant.ID, before, endpointsAtOnce)
			return err
		})
		return rows, err
	}
	rows, err := read("")
	if err != nil {
		return nil, err
	}
	return &reply{status: http.StatusOK, pieces: func(p *pieces) error {
		if err := p.text(`{"data":[`); err != nil {
			return err
		}
		for len(rows) > 0 {
			last := rows[len(rows)-1].Ref
			if err := writeSome(p, rows, showEndpoint, nil); err != nil {
				return err
			}
			if len(rows) < endpointsAtOnce {
				break
			}
			if rows, err = read(last); err != nil {
				return err
			}
			if len(rows) > 0 {
				if err := p.text(`,`); err != nil {
					return err
				}
			}
		}
		return p.text(`]}`)
	}}, nil
}

func (s *server) createEndpoint(q *request) (*reply, error) {
	var in EndpointUpdate
	if err := s.readEndpoint(q.body, &in, true); err != nil {
		return nil, err
	}
	e := posthorn.Endpoint{
		Ref: posthorn.NewRef(posthorn.EndpointPrefix, q.at), Tenant: q.tenant.ID,
		URL: in.URL.V, Description: in.Description.V, Events: patternsOf(in.Events.V),
		Status: posthorn.StatusActive, Version: 1, CreatedAt: q.at, UpdatedAt: q.at,
	}
	if in.Status.V == string(posthorn.StatusPaused) {
		pause(&e, q)
	}
	key := make([]byte, 32)
	rand.Read(key) // never fails: the runtime ends the process instead
	rep, err := ok(http.StatusCreated, showCreated(&e, webhook.FormatSecret(key)))
	if err != nil {
		return nil, err
	}
	rep.location, rep.etag, rep.secret = "/endpoints/"+e.Ref, etagOf(e.Version), true
	if err := s.remember(q, rep); err != nil {
		return nil, err
	}
	seal := func(id int64) (store.Sealed, error) {
		keyID, box := s.Keyring.Seal(key, secretBind(e.Tenant, id))
		return store.Sealed{KeyID: keyID, Box: box, CreatedAt: q.at}, nil
	}
	_, err = s.Store.CreateEndpoint(q.Context(), q.change(), e, seal, s.MaxEndpoints)
	if errors.Is(err, store.ErrEndpointLimit) {
		return nil, posthorn.Errorf(posthorn.Conflict, "The tenant has %d endpoints, as many as it may; delete one first.", s.MaxEndpoints)
	}
	return rep, sameURL(err)
}

// sameURL words what a store says of a url that too many have.
func sameURL(err error) error {
	if errors.Is(err, store.ErrSameURL) {
		return posthorn.Errorf(posthorn.Conflict, "The tenant has %d endpoints with this url, as many as it may, and each would be sent every event that matches. "+
			"Put the events into one of them, or use another path: the query, the case of the host and the default port do not count.", posthorn.MaxSameURL)
	}
	return err
}

func pause(e *posthorn.Endpoint, q *request) {
	e.Status, e.PausedReason, e.PausedAt = posthorn.StatusPaused, posthorn.PausedByUser, q.at
}

func (s *server) getEndpoint(q *request) (*reply, error) {
	e, err := s.endpoint(q)
	if err != nil {
		return nil, err
	}
	return endpointReply(&e)
}

func endpointReply(e *posthorn.Endpoint) (*reply, error) {
	rep, err := ok(http.StatusOK, showEndpoint(e))
	rep.etag = etagOf(e.Version)
	return rep, err
}

// endpoint finds the endpoint that the path names.
func (s *server) endpoint(q *request) (posthorn.Endpoint, error) {
	ref, err := endpointRef(q)
	if err != nil {
		return posthorn.Endpoint{}, err
	}
	e, err := s.Store.EndpointByRef(q.Context(), q.tenant.ID, ref)
	return e, missing(err, "endpoint")
}

func endpointRef(q *request) (string, error) {
	ref := q.PathValue("webhookId")
	if !posthorn.ValidRef(posthorn.EndpointPrefix, ref) {
		return "", missing(store.ErrNotFound, "endpoint")
	}
	return ref, nil
}

func (s *server) updateEndpoint(q *request) (*reply, error) {
	ref, err := endpointRef(q)
	if err != nil {
		return nil, err
	}
	var in EndpointUpdate
	if err := s.readEndpoint(q.body, &in, false); err != nil {
		// A foreign or unknown endpoint is unknown, whatever the body says.
		if _, err := s.endpoint(q); err != nil {
			return nil, err
		}
		return nil, err
	}
	match, version, err := s.wantedVersion(q)
	if err != nil {
		return nil, err
	}
	e, err := s.Store.UpdateEndpoint(q.Context(), q.change(), q.tenant.ID, ref, version, func(e *posthorn.Endpoint) error {
		in.apply(e, q)
		return nil
	})
	if err != nil {
		return nil, match.endpointError(err)
	}
	return endpointReply(&e)
}

// apply changes what the body names.
func (in *EndpointUpdate) apply(e *posthorn.Endpoint, q *request) {
	if in.URL.Set {
		e.URL = in.URL.V
	}
	if in.Events.Set {
		e.Events = patternsOf(in.Events.V)
	}
	if in.Description.Set {
		e.Description = in.Description.V // "" for null
	}
	if !in.Status.Set || in.Status.V == string(e.Status.Shown()) {
		return
	}
	if in.Status.V == string(posthorn.StatusPaused) {
		pause(e, q)
		return
	}
	e.Status, e.PausedReason, e.PausedAt = posthorn.StatusActive, "", time.Time{}
}

func (s *server) deleteEndpoint(q *request) (*reply, error) {
	ref, err := endpointRef(q)
	if err != nil {
		return nil, err
	}
	match, version, err := s.wantedVersion(q)
	if err != nil {
		return nil, err
	}
	if err := s.Store.DeleteEndpoint(q.Context(), q.change(), q.tenant.ID, ref, version); err != nil {
		return nil, match.endpointError(err)
	}
	return deletedReply(q)
}

// endpointError is what a change of an endpoint failed for, in the user's words.
func (p *precondition) endpointError(err error) error {
	err = p.refusal(err, "The endpoint has another ETag than If-Match names: it was changed in the meantime. Get it again and repeat.")
	return missing(sameURL(err), "endpoint")
}

// wantedVersion reads If-Match for an endpoint: see [precondition.version].
func (s *server) wantedVersion(q *request) (p precondition, version int64, err error) {
	p = readIfMatch(q.Header["If-Match"])
	version, err = p.version(func() (int64, error) {
		e, err := s.endpoint(q)
		return e.Version, err
	})
	return p, version, err
}

// Deleted is the body of a deletion's answer for who prefers one.
type Deleted struct {
	Deleted bool `json:"deleted"`
}

var preferParam = param{"Prefer", "return=representation asks for 200 with a body (RFC 7240).", stringSchema()}

var deleted = []success{
	{status: 204, doc: "Deleted."},
	{status: 200, doc: "Deleted; with Prefer: return=representation.", model: reflect.TypeFor[Deleted](), headers: []string{"Preference-Applied"}},
}

// deletedReply is a bare 204: HTTP allows no content there.
func deletedReply(q *request) (*reply, error) {
	if !prefersRepresentation(q.Header["Prefer"]) {
		return &reply{status: http.StatusNoContent}, nil
	}
	b, err := encode(Deleted{true})
	return &reply{status: http.StatusOK, body: b, preferred: true}, err
}

func prefersRepresentation(values []string) bool {
	for p := range strings.SplitSeq(strings.Join(values, ","), ",") {
		p, _, _ = strings.Cut(p, ";")
		name, value, _ := strings.Cut(p, "=")
		if strings.EqualFold(strings.TrimSpace(name), "return") &&
			strings.EqualFold(strings.Trim(strings.TrimSpace(value), `"`), "representation") {
			return true
		}
	}
	return false
}
