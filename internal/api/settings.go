package api

import (
	"net/http"
	"reflect"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/access"
	"github.com/posthorn/posthorn/internal/store"
)

const settingsExample = `{
  "headers": {"Authorization": "Bearer of-the-receiver"},
  "rate_per_second": 50,
  "retry_schedule": [5, 60, 600, 3600],
  "filter": "data.country == \"DE\""
}`

func (s *server) settingsOperations() []*operation {
	return []*operation{{
		id: "get-endpoint-settings", method: "GET", path: "/endpoints/{webhookId}/settings", tag: "Endpoints", scope: access.ScopeRead,
		summary:  "Get delivery settings",
		success:  []success{{status: 200, doc: "The settings.", model: reflect.TypeFor[answer[Settings]](), headers: []string{"ETag"}}},
		failures: []posthorn.Code{posthorn.NotFound},
		handle:   s.getSettings,
	}, {
		id: "update-endpoint-settings", method: "PATCH", path: "/endpoints/{webhookId}/settings", tag: "Endpoints", scope: access.ScopeWrite,
		summary:     "Change delivery settings",
		description: "A merge patch (RFC 7396): changes what the body names, and null puts a default back. A filter holds for events that are published from then on, all else for what waits too.",
		headers:     []param{ifMatch("settings have")},
		body:        jsonBody[SettingsUpdate](settingsExample, "application/merge-patch+json"),
		success:     []success{{status: 200, doc: "The settings as they are now.", model: reflect.TypeFor[answer[Settings]](), headers: []string{"ETag"}}},
		failures:    []posthorn.Code{posthorn.NotFound, posthorn.PreconditionFailed},
		handle:      s.updateSettings,
	}, {
		id: "test-endpoint-filter", method: "POST", path: "/endpoints/{webhookId}/filter/test", tag: "Endpoints", scope: access.ScopeRead,
		summary:     "Try a filter on recent events",
		description: "Shows which of the newest events of the endpoint's types the expression would let pass. Nothing is sent and nothing changes. 429 when the tenant's filters have used their time.",
		body:        jsonBody[FilterTest](`{"filter": "data.country == \"DE\""}`),
		success:     []success{{status: 200, doc: "What the filter says of each event, newest first.", model: reflect.TypeFor[answer[FilterTested]]()}},
		failures:    []posthorn.Code{posthorn.NotFound},
		handle:      s.testFilter,
	}}
}

func (s *server) getSettings(q *request) (*reply, error) {
	e, err := s.endpoint(q)
	if err != nil {
		return nil, err
	}
	return settingsReply(&e)
}

func settingsReply(e *posthorn.Endpoint) (*reply, error) {
	rep, err := ok(http.StatusOK, showSettings(&e.Settings))
	rep.etag = etagOf(e.SettingsVersion)
	return rep, err
}

func (s *server) updateSettings(q *request) (*reply, error) {
	e, err := s.endpoint(q) // a foreign or unknown one is unknown, whatever the body says
	if err != nil {
		return nil, err
	}
	var u SettingsUpdate
	in, err := decode(q.body, &u)
	if err != nil {
		return nil, err
	}
	u.check(in)
	if err := s.checkFilter(q, in, &u.Filter); err != nil {
		return nil, err
	}
	if err := in.err(); err != nil {
		return nil, err
	}
	match := readIfMatch(q.Header["If-Match"])
	version, err := match.version(func() (int64, error) { return e.SettingsVersion, nil })
	if err != nil {
		return nil, err
	}
	e, err = s.Store.UpdateSettings(q.Context(), q.change(), q.tenant.ID, e.Ref, version, u.apply, s.sealHeaders(q, &e, u.Headers.V)...)
	if err != nil {
		err = match.refusal(err, "The settings have another ETag than If-Match names: they were changed in the meantime. Get them again and repeat.")
		return nil, missing(err, "endpoint")
	}
	return settingsReply(&e)
}

// checkFilter compiles the filter that the body names, in the tenant's filter time.
func (s *server) checkFilter(q *request, in *input, f *field[string]) error {
	if set, null := f.state(); !set || null || !in.sound("/filter") {
		return nil
	}
	turn, err := s.Publish.SetFilter(q.Context(), q.tenant.ID)
	if err != nil {
		return err
	}
	defer turn.Leave()
	if _, err := turn.Compile(f.V); err != nil {
		in.fault("/filter", "%s", err)
	}
	return nil
}

// sealHeaders seals the values for where the endpoint leads now: one whose url is
// changed to another origin meanwhile is not sent there.
func (s *server) sealHeaders(q *request, e *posthorn.Endpoint, changes headerPatch) (sealed []store.SealedHeader) {
	for _, c := range changes {
		if c.remove {
			continue
		}
		keyID, box := s.Keyring.SealHeader(c.value, posthorn.Origin(e.URL), e.Tenant, e.ID)
		sealed = append(sealed, store.SealedHeader{Name: c.name, Sealed: store.Sealed{KeyID: keyID, Box: box, CreatedAt: q.at}})
	}
	return sealed
}
