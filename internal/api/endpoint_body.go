package api

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/posthorn/posthorn"
)

// Endpoint is an endpoint as users see it: exactly the documented keys in the
// documented order.
type Endpoint struct {
	ID          string             `json:"id" doc:"wh_ and a ULID." example:"wh_01J1C6ZGQ6FQTH2X6M2VS3P0XW"`
	URL         string             `json:"url" format:"uri" doc:"Destination URL for webhook deliveries."`
	Description string             `json:"description" doc:"Endpoint label."`
	Events      []posthorn.Pattern `json:"events" doc:"Event types subscribed by this endpoint."`
	Status      string             `json:"status" enum:"active,paused"`
	CreatedAt   string             `json:"created_at" format:"date-time"`
	UpdatedAt   string             `json:"updated_at" format:"date-time"`
}

// CreatedEndpoint is an endpoint in the answer to its creation, the only one
// that shows the secret.
type CreatedEndpoint struct {
	ID          string             `json:"id" doc:"wh_ and a ULID." example:"wh_01J1C6ZGQ6FQTH2X6M2VS3P0XW"`
	URL         string             `json:"url" format:"uri" doc:"Destination URL for webhook deliveries."`
	Description string             `json:"description" doc:"Endpoint label."`
	Events      []posthorn.Pattern `json:"events" doc:"Event types subscribed by this endpoint."`
	Status      string             `json:"status" enum:"active,paused"`
	Secret      string             `json:"secret" doc:"Verifies signatures (Standard Webhooks); shown here only."`
	CreatedAt   string             `json:"created_at" format:"date-time"`
	UpdatedAt   string             `json:"updated_at" format:"date-time"`
}

// endpointTime is how the endpoint resource shows times: to the second.
func endpointTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

func showEndpoint(e *posthorn.Endpoint) Endpoint {
	return Endpoint{
		ID: e.Ref, URL: e.URL, Description: e.Description, Events: e.Events, Status: string(e.Status.Shown()),
		CreatedAt: endpointTime(e.CreatedAt), UpdatedAt: endpointTime(e.UpdatedAt),
	}
}

func showCreated(e *posthorn.Endpoint, secret string) CreatedEndpoint {
	s := showEndpoint(e)
	return CreatedEndpoint{
		ID: s.ID, URL: s.URL, Description: s.Description, Events: s.Events, Status: s.Status, Secret: secret,
		CreatedAt: s.CreatedAt, UpdatedAt: s.UpdatedAt,
	}
}

// EndpointCreate is the body of POST /endpoints.
type EndpointCreate struct {
	URL         field[string]   `json:"url" format:"uri" maxLength:"2048" doc:"Destination URL for webhook deliveries: absolute, https."`
	Events      field[[]string] `json:"events" minItems:"1" maxItems:"100" uniqueItems:"true" doc:"Event types or patterns to subscribe to; see GET /event-types."`
	Description field[string]   `json:"description,omitempty" maxLength:"1024" doc:"Endpoint label."`
	Status      field[string]   `json:"status,omitempty" enum:"active,paused" doc:"Initial status; active when left out."`
}

// EndpointUpdate is the body of PATCH /endpoints/{webhookId}, a merge patch
// (RFC 7396).
type EndpointUpdate struct {
	URL         field[string]   `json:"url,omitempty" format:"uri" maxLength:"2048" doc:"Destination URL."`
	Events      field[[]string] `json:"events,omitempty" minItems:"1" maxItems:"100" uniqueItems:"true" doc:"Event types or patterns; they replace the old ones."`
	Description field[string]   `json:"description,omitempty" nullable:"true" maxLength:"1024" doc:"Endpoint label; null clears it."`
	Status      field[string]   `json:"status,omitempty" enum:"active,paused" doc:"paused holds deliveries, active sends them."`
}

// endpointReadOnly are members that users see but may not write.
var endpointReadOnly = []string{"id", "secret", "created_at", "updated_at"}

// readEndpoint reads and judges the body of a creation or a change.
func (s *server) readEndpoint(body []byte, into *EndpointUpdate, create bool) error {
	var in *input
	var err error
	if create {
		var c EndpointCreate
		in, err = decode(body, &c, endpointReadOnly...)
		*into = EndpointUpdate(c)
	} else {
		in, err = decode(body, into, endpointReadOnly...)
	}
	if err != nil {
		return err
	}
	s.checkEndpoint(in, into)
	return in.err()
}

func (s *server) checkEndpoint(in *input, e *EndpointUpdate) {
	if e.URL.Set && in.sound("/url") {
		if n := utf8.RuneCountInString(e.URL.V); n > posthorn.MaxURLLength {
			in.fault("/url", "is %d characters long; at most %d are allowed", n, posthorn.MaxURLLength)
		} else if err := s.CheckURL(e.URL.V); err != nil {
			in.fault("/url", "%s", err)
		}
	}
	if e.Events.Set && in.sound("/events") {
		s.checkPatterns(in, e.Events.V)
	}
	if e.Description.Set && in.sound("/description") {
		if n := utf8.RuneCountInString(e.Description.V); n > posthorn.MaxDescriptionLength {
			in.fault("/description", "is %d characters long; at most %d are allowed", n, posthorn.MaxDescriptionLength)
		} else if strings.ContainsFunc(e.Description.V, isControl) {
			in.fault("/description", "must not contain control characters")
		}
	}
	if e.Status.Set && in.sound("/status") {
		switch posthorn.EndpointStatus(e.Status.V) {
		case posthorn.StatusActive, posthorn.StatusPaused:
		default:
			in.fault("/status", "must be active or paused")
		}
	}
}

// isControl reports characters that have no place in a label: all control
// characters but tab and line ends.
func isControl(r rune) bool {
	return r < 0x20 && r != '\t' && r != '\n' && r != '\r' || r >= 0x7f && r < 0xa0
}

func (s *server) checkPatterns(in *input, patterns []string) {
	switch n := len(patterns); {
	case n == 0:
		in.fault("/events", "must name at least one event type or pattern, as cases.updated, cases.* or *")
		return
	case n > posthorn.MaxPatterns:
		in.fault("/events", "has %d items; at most %d are allowed", n, posthorn.MaxPatterns)
		return
	}
	seen := make(map[string]int, len(patterns))
	for i, p := range patterns {
		at := fmt.Sprintf("/events/%d", i)
		first, again := seen[p]
		switch {
		case !in.sound(at):
			continue // no string
		case again:
			in.fault(at, "is the same as /events/%d; name each once", first)
		case !posthorn.Pattern(p).Valid():
			in.fault(at, "is not an event type or pattern; write it as cases.updated or cases.*%s", s.suggestion(p))
		case !s.Catalog.Matches(posthorn.Pattern(p)):
			in.fault(at, "matches no event type; GET %s/event-types lists them%s", Base, s.suggestion(p))
		}
		if !again {
			seen[p] = i
		}
	}
}

func (s *server) suggestion(name string) string {
	if len(name) > posthorn.MaxTypeLength {
		return ""
	}
	if near := s.Catalog.Suggest(name); near != "" {
		return " (did you mean " + near + "?)"
	}
	return ""
}

func patternsOf(texts []string) []posthorn.Pattern {
	all := make([]posthorn.Pattern, len(texts))
	for i, t := range texts {
		all[i] = posthorn.Pattern(t)
	}
	return all
}
