package webhook

import (
	"net/http"
	"strings"
)

// values returns all values of a header, in whatever case the map spells its name:
// net/http writes Webhook-Id, HTTP/2 and many frameworks webhook-id, and names are
// the same in any case (RFC 9110, section 5.1). The values of several spellings count
// together, so that a second one can hide nothing. It returns nil where there is none.
func values(h http.Header, name string) (all []string) {
	name = http.CanonicalHeaderKey(name)
	for key, v := range h {
		if len(key) == len(name) && http.CanonicalHeaderKey(key) == name {
			all = append(all, v...)
		}
	}
	return all
}

// single returns the only value of a header. One that is missing or empty is
// [ErrNoHeaders]. More than one is [ErrRepeatedHeader], equal ones too: what the
// next reader takes could be another than what was verified.
func single(h http.Header, name string) (string, error) {
	switch values := values(h, name); {
	case len(values) == 0 || len(values) == 1 && values[0] == "":
		return "", ErrNoHeaders
	case len(values) > 1:
		return "", ErrRepeatedHeader
	default:
		return values[0], nil
	}
}

// only returns the only value of a header; empty if
// there is none, or more than one.
func only(h http.Header, name string) string {
	value, _ := single(h, name) // that there is none is no fault
	return value
}

// signatures returns each signature of the request. They are separated by spaces, and
// may come in several lines of the header, which something on the way may have joined
// by ", " (RFC 9110, section 5.2). No signature holds a comma at its end.
func signatures(h http.Header) (all []string) {
	for _, line := range values(h, HeaderSignature) {
		for one := range strings.FieldsFuncSeq(line, func(r rune) bool { return r == ' ' || r == '\t' }) {
			if one = strings.TrimSuffix(one, ","); one != "" {
				all = append(all, one)
			}
		}
	}
	return all
}
