package web

import (
	"net/http"
	"slices"
	"strings"

	"github.com/posthorn/posthorn"
)

// Headers that mean one thing each: of two, a proxy in front may read one and we the
// other. Not among them are lists (RFC 9110, 5.3: Accept, If-Match, Prefer,
// X-Forwarded-For …), the CloudEvents attributes, which are named with the other
// faults of an event, and what is judged before: Host and Content-Length, which net/http
// refuses, and Authorization, of which two are no valid token (401).
var (
	singleHeaders  = []string{"Content-Type", "Idempotency-Key", "Last-Event-Id", "Origin"}
	singlePrefixes = []string{"Posthorn-"} // ours
)

// CheckSingle reports a header that must not be there twice, and is, whether or not
// its values are the same. The error is Malformed. It is the one place that decides
// this: what it has let pass may be read by its first value.
func CheckSingle(h http.Header) error {
	doubled := "" // the first by name: h has no order
	for name, values := range h {
		if len(values) > 1 && isSingle(name) && (doubled == "" || name < doubled) {
			doubled = name
		}
	}
	if doubled == "" {
		return nil
	}
	return posthorn.Errorf(posthorn.Malformed, "The header %s is there %d times; send it once.", doubled, len(h[doubled]))
}

func isSingle(name string) bool {
	return slices.Contains(singleHeaders, name) ||
		slices.ContainsFunc(singlePrefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}
