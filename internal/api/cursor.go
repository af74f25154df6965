package api

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"strconv"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/secretbox"
)

// A cursor is the place where the next page begins, sealed: it cannot be read
// or made up, and opens only for the same tenant, route and filters. It holds
// across restarts and on every node that has the operator's keys.

func (q *request) cursorBind() secretbox.Bind {
	filters := make(url.Values, len(q.query.values))
	for name, values := range q.query.values {
		if name != "cursor" && name != "limit" {
			filters[name] = values
		}
	}
	return secretbox.Bind{Kind: "cursor " + q.URL.Path + "?" + filters.Encode(), Tenant: q.tenant.ID}
}

// makeCursor seals a place.
func (s *server) makeCursor(q *request, place string) string {
	keyID, box := s.Keyring.Seal([]byte(place), q.cursorBind())
	raw := make([]byte, 0, 1+len(keyID)+len(box))
	raw = append(raw, byte(len(keyID)))
	raw = append(raw, keyID...)
	return base64.RawURLEncoding.EncodeToString(append(raw, box...))
}

// place is where the page that is asked for begins; empty for the first one.
func (s *server) place(q *request) string {
	if !q.query.has("cursor") {
		return ""
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(q.query.text("cursor"))
	if err == nil && len(raw) > 0 && len(raw) > 1+int(raw[0]) {
		n := 1 + int(raw[0])
		if place, err := s.Keyring.Open(string(raw[1:n]), raw[n:], q.cursorBind()); err == nil {
			return string(place)
		}
	}
	q.query.fault("cursor is not one that this list gave out for these filters; begin again without it")
	return ""
}

// placeID is place for lists that are ordered by a number.
func (s *server) placeID(q *request) int64 {
	place := s.place(q)
	if place == "" {
		return 0
	}
	id, err := strconv.ParseInt(place, 10, 64)
	if err != nil {
		q.query.fault("cursor is not one that this list gave out; begin again without it")
	}
	return id
}

// listReply answers with a page of a list. next is the place of the next page,
// 0 for none.
func listReply[T any](s *server, q *request, rows []T, next int64) (*reply, error) {
	l := list[T]{Data: rows}
	if next != 0 {
		c := s.makeCursor(q, strconv.FormatInt(next, 10))
		l.NextCursor = &c
	}
	b, err := encode(l)
	return &reply{status: 200, body: b}, err
}

// nextLink is the Link header to the next page (RFC 8288).
func (s *server) nextLink(q *request, limit int, cursor string) string {
	values := url.Values{"limit": {strconv.Itoa(limit)}, "cursor": {cursor}}
	return fmt.Sprintf(`<%s%s?%s>; rel="next"`, s.PublicURL, q.URL.Path, values.Encode())
}

// tenantNamed finds a tenant by a name that the request gave.
func (s *server) tenantNamed(q *request, name string) (posthorn.Tenant, error) {
	if !posthorn.ValidTenantName(name) {
		return posthorn.Tenant{}, noTenant()
	}
	t, err := s.Store.TenantByName(q.Context(), name)
	if isMissing(err) {
		return posthorn.Tenant{}, noTenant()
	}
	return t, storeError(err)
}

func noTenant() error {
	return posthorn.Errorf(posthorn.NotFound, "There is no tenant with this name.")
}
