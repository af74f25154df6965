package api

import (
	"errors"
	"net/http"
	"reflect"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/access"
	"github.com/posthorn/posthorn/internal/store"
)

// Tenant is a partner of the platform.
type Tenant struct {
	Name      string `json:"name"`
	CreatedAt string `json:"created_at" format:"date-time"`
	Suspended bool   `json:"suspended" doc:"It may not publish and is sent nothing."`
}

// TenantCreate is the body of POST /tenants.
type TenantCreate struct {
	Name field[string] `json:"name" pattern:"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"`
}

// Sending says whether attempts are made at all.
type Sending struct {
	Sending bool `json:"sending"`
}

func (s *server) tenantOperations() []*operation {
	one := []success{{status: 200, doc: "The tenant.", model: reflect.TypeFor[answer[Tenant]]()}}
	unknown := []posthorn.Code{posthorn.NotFound}
	return []*operation{{
		id: "list-tenants", method: "GET", path: "/tenants", tag: "Platform", scope: access.ScopeAdmin, reach: ofPlatform,
		summary: "List tenants",
		query:   []param{limitParam, cursorParam},
		success: []success{{status: 200, doc: "A page of tenants.", model: reflect.TypeFor[list[Tenant]]()}},
		handle:  s.listTenants,
	}, {
		id: "create-tenant", method: "POST", path: "/tenants", tag: "Platform", scope: access.ScopeAdmin, reach: ofPlatform,
		summary:  "Create a tenant",
		body:     jsonBody[TenantCreate](),
		success:  []success{{status: 201, doc: "The tenant.", model: reflect.TypeFor[answer[Tenant]](), headers: []string{"Location"}}},
		failures: []posthorn.Code{posthorn.Conflict},
		handle:   s.createTenant,
	}, {
		id: "get-tenant", method: "GET", path: "/tenants/{name}", tag: "Platform", scope: access.ScopeAdmin, reach: ofPlatform,
		summary: "Get a tenant", success: one, failures: unknown, handle: s.getTenant,
	}, {
		id: "delete-tenant", method: "DELETE", path: "/tenants/{name}", tag: "Platform", scope: access.ScopeAdmin, reach: ofPlatform,
		summary:     "Delete a tenant with all that it has",
		description: "Its tokens and endpoints are unknown at once; what waits is canceled.",
		headers:     []param{preferParam},
		success:     deleted, failures: unknown, handle: s.deleteTenant,
	}, {
		id: "suspend-tenant", method: "POST", path: "/tenants/{name}/suspend", tag: "Platform", scope: access.ScopeAdmin, reach: ofPlatform,
		summary:     "Suspend a tenant",
		description: "Its publishing is refused, its deliveries are held.",
		body:        noBody(), success: one, failures: unknown,
		handle: func(q *request) (*reply, error) { return s.suspendTenant(q, true) },
	}, {
		id: "resume-tenant", method: "POST", path: "/tenants/{name}/resume", tag: "Platform", scope: access.ScopeAdmin, reach: ofPlatform,
		summary: "Resume a tenant",
		body:    noBody(), success: one, failures: unknown,
		handle: func(q *request) (*reply, error) { return s.suspendTenant(q, false) },
	}}
}

func showTenant(t *posthorn.Tenant) Tenant {
	return Tenant{Name: t.Name, CreatedAt: posthorn.FormatTime(t.CreatedAt), Suspended: t.Suspended()}
}

func (s *server) listTenants(q *request) (*reply, error) {
	limit, before := q.query.limit(defaultLimit), s.placeID(q)
	if err := q.query.err(); err != nil {
		return nil, err
	}
	tenants, err := s.Store.Tenants(q.Context(), before, limit+1)
	if err != nil {
		return nil, err
	}
	var next int64
	if len(tenants) > limit {
		tenants = tenants[:limit]
		next = tenants[limit-1].ID
	}
	shown := make([]Tenant, len(tenants))
	for i := range tenants {
		shown[i] = showTenant(&tenants[i])
	}
	return listReply(s, q, shown, next)
}

func (s *server) createTenant(q *request) (*reply, error) {
	var in TenantCreate
	read, err := decode(q.body, &in)
	if err != nil {
		return nil, err
	}
	if in.Name.Set && read.sound("name") && !posthorn.ValidTenantName(in.Name.V) {
		read.fault("/name", "must begin with a letter or digit and go on with letters, digits, dots, underscores and hyphens; at most 64 in all")
	}
	if err := read.err(); err != nil {
		return nil, err
	}
	t := posthorn.Tenant{Name: in.Name.V, CreatedAt: q.at}
	rep, err := ok(http.StatusCreated, showTenant(&t))
	if err != nil {
		return nil, err
	}
	rep.location = "/tenants/" + t.Name
	if err := s.remember(q, rep); err != nil {
		return nil, err
	}
	_, err = s.Store.CreateTenant(q.Context(), q.change(), t.Name)
	if errors.Is(err, store.ErrExists) {
		return nil, posthorn.Errorf(posthorn.Conflict, "There is a tenant with this name; choose another one.")
	}
	return rep, err
}

func (s *server) getTenant(q *request) (*reply, error) {
	t, err := s.tenantNamed(q, q.PathValue("name"))
	if err != nil {
		return nil, err
	}
	return ok(http.StatusOK, showTenant(&t))
}

func (s *server) deleteTenant(q *request) (*reply, error) {
	t, err := s.tenantNamed(q, q.PathValue("name"))
	if err != nil {
		return nil, err
	}
	if err := s.Store.DeleteTenant(q.Context(), q.change(), t.ID); err != nil {
		return nil, goneTenant(err)
	}
	return deletedReply(q)
}

// goneTenant is for a tenant that another request deleted in the meantime.
func goneTenant(err error) error {
	if isMissing(err) {
		return noTenant()
	}
	return err
}

func (s *server) suspendTenant(q *request, suspend bool) (*reply, error) {
	t, err := s.tenantNamed(q, q.PathValue("name"))
	if err != nil {
		return nil, err
	}
	shown := showTenant(&t)
	shown.Suspended = suspend
	rep, err := ok(http.StatusOK, shown)
	if err != nil {
		return nil, err
	}
	if err := s.remember(q, rep); err != nil {
		return nil, err
	}
	_, err = s.Store.SuspendTenant(q.Context(), q.change(), t.ID, suspend)
	return rep, goneTenant(err)
}

func (s *server) sendingOperations() []*operation {
	one := []success{{status: 200, doc: "Whether attempts are made.", model: reflect.TypeFor[answer[Sending]]()}}
	return []*operation{{
		id: "pause-sending", method: "POST", path: "/sending/pause", tag: "Platform", scope: access.ScopeAdmin, reach: ofPlatform,
		summary:     "Stop all sending",
		description: "The brake of the whole installation: no attempt starts on any node. Events are still accepted.",
		body:        noBody(), success: one,
		handle: func(q *request) (*reply, error) { return s.setSending(q, false) },
	}, {
		id: "resume-sending", method: "POST", path: "/sending/resume", tag: "Platform", scope: access.ScopeAdmin, reach: ofPlatform,
		summary: "Go on with sending",
		body:    noBody(), success: one,
		handle: func(q *request) (*reply, error) { return s.setSending(q, true) },
	}}
}

func (s *server) setSending(q *request, on bool) (*reply, error) {
	rep, err := ok(http.StatusOK, Sending{on})
	if err != nil {
		return nil, err
	}
	if err := s.remember(q, rep); err != nil {
		return nil, err
	}
	return rep, s.Store.SetSending(q.Context(), q.change(), on)
}
