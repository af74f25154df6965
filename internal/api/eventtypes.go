package api

import (
	"net/http"
	"reflect"
	"slices"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/access"
	"github.com/posthorn/posthorn/internal/catalog"
	"github.com/posthorn/posthorn/internal/store"
)

// EventType is a type of events, or an open namespace of them.
type EventType struct {
	Name        string   `json:"name" example:"cases.updated"`
	Description string   `json:"description"`
	Open        bool     `json:"open" doc:"Any type below the name may be published and subscribed to."`
	Operational bool     `json:"operational" doc:"Made by Posthorn only, about endpoints."`
	Schema      document `json:"schema" doc:"JSON Schema of data."`
	Example     document `json:"example" doc:"An example of data."`
}

// document is a JSON object of the catalogue.
type document jsontext.Value

// Schema documents it as any object.
func (document) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: "object", AdditionalProperties: true}
}

// MarshalJSON gives the document as it is, null for none.
func (d document) MarshalJSON() ([]byte, error) {
	if len(d) == 0 {
		return []byte("null"), nil
	}
	return d, nil
}

func (s *server) eventTypeOperations() []*operation {
	return []*operation{{
		id: "list-event-types", method: "GET", path: "/event-types", tag: "Event types", scope: access.ScopeRead,
		summary: "List event types",
		query:   []param{limitParam, cursorParam},
		success: []success{{status: 200, doc: "A page of event types.", model: reflect.TypeFor[list[EventType]]()}},
		handle:  s.listEventTypes,
	}, {
		id: "get-event-type", method: "GET", path: "/event-types/{type}", tag: "Event types", scope: access.ScopeRead,
		summary:  "Get an event type with schema and example",
		success:  []success{{status: 200, doc: "The event type.", model: reflect.TypeFor[answer[EventType]]()}},
		failures: []posthorn.Code{posthorn.NotFound},
		handle:   s.getEventType,
	}}
}

func showEventType(t *catalog.Type) EventType {
	return EventType{
		Name: t.Name, Description: t.Description, Open: t.Namespace, Operational: t.Operational,
		Schema: document(t.Schema), Example: document(t.Example),
	}
}

func (s *server) listEventTypes(q *request) (*reply, error) {
	limit, place := q.query.limit(defaultLimit), s.place(q)
	if err := q.query.err(); err != nil {
		return nil, err
	}
	types := s.Catalog.Types()
	if place != "" {
		i := slices.IndexFunc(types, func(t catalog.Type) bool { return t.Name == place })
		types = types[i+1:] // from the beginning if it was taken out of the catalogue
	}
	l := list[EventType]{Data: make([]EventType, 0, min(limit, len(types)))}
	for i := range types[:min(limit, len(types))] {
		l.Data = append(l.Data, showEventType(&types[i]))
	}
	if len(types) > limit {
		c := s.makeCursor(q, types[limit-1].Name)
		l.NextCursor = &c
	}
	b, err := encode(l)
	return &reply{status: http.StatusOK, body: b}, err
}

func (s *server) getEventType(q *request) (*reply, error) {
	t, found := s.Catalog.Lookup(q.PathValue("type"))
	if !found {
		return nil, missing(store.ErrNotFound, "event type")
	}
	return ok(http.StatusOK, showEventType(&t))
}
