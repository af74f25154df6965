package api

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"strconv"

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
	return base64.RawURLEncoding.EncodeToString(secretbox.Pack(s.Keyring.Seal([]byte(place), q.cursorBind())))
}

// place is where the page that is asked for begins; empty for the first one.
func (s *server) place(q *request) string {
	if !q.query.has("cursor") {
		return ""
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(q.query.text("cursor"))
	if keyID, box, ok := secretbox.Unpack(raw); ok && err == nil {
		if place, err := s.Keyring.Open(keyID, box, q.cursorBind()); err == nil {
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

// listReply answers with a page of a list of what is small. next is the place of the
// next page, 0 for none.
func listReply[T any](s *server, q *request, rows []T, next int64) (*reply, error) {
	return pageReply(s, q, rows, func(v *T) T { return *v }, nil, next)
}

// nextLink is the Link header to the next page (RFC 8288).
func (s *server) nextLink(q *request, limit int, cursor string) string {
	values := url.Values{"limit": {strconv.Itoa(limit)}, "cursor": {cursor}}
	return fmt.Sprintf(`<%s%s?%s>; rel="next"`, s.PublicURL, q.URL.Path, values.Encode())
}
