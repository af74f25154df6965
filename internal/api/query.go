package api

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/posthorn/posthorn"
)

// Page sizes of lists.
const (
	defaultLimit = 50
	maxLimit     = 250
)

var (
	limitParam  = param{"limit", "How many at most.", limitSchema(defaultLimit)}
	cursorParam = param{"cursor", "next_cursor of the page before; only with the same filters.", stringSchema()}
	typeParam   = param{"type", "An event type or pattern, as cases.*.", stringSchema()}
	sinceParam  = param{"since", "Accepted at this time or later.", timeSchema()}
	untilParam  = param{"until", "Accepted before this time.", timeSchema()}
)

func stringSchema() *huma.Schema { return &huma.Schema{Type: "string"} }
func timeSchema() *huma.Schema   { return &huma.Schema{Type: "string", Format: "date-time"} }
func limitSchema(byDefault any) *huma.Schema {
	return &huma.Schema{Type: "integer", Minimum: new(1.0), Maximum: new(float64(maxLimit)), Default: byDefault}
}

// query is a request's query. Its methods note what is wrong, so that all of it
// is told at once by err.
type query struct {
	values url.Values
	wrong  []string
}

// parseQuery refuses what is no query, and notes unknown parameters and repeated
// ones: an operation that has parameters tells of them together with its own.
func parseQuery(raw string, known []param) (*query, error) {
	if raw == "" {
		return &query{}, nil
	}
	values, err := url.ParseQuery(raw)
	if err != nil {
		return nil, posthorn.Errorf(posthorn.Malformed, "The URL's query is malformed; escape it as application/x-www-form-urlencoded.")
	}
	q := &query{values: values}
	names := make([]string, 0, len(known))
	for _, p := range known {
		names = append(names, p.name)
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		switch {
		case !slices.Contains(names, name) && len(names) == 0:
			q.fault("%q is not a query parameter of this route, which has none", clip(name))
		case !slices.Contains(names, name):
			q.fault("%q is not a query parameter of this route, which has %s", clip(name), strings.Join(names, ", "))
		case len(values[name]) > 1:
			q.fault("%q is there %d times; give it once", name, len(values[name]))
		}
	}
	if len(known) == 0 {
		return q, q.err()
	}
	return q, nil
}

// clip keeps what a client made up short where it is quoted back.
func clip(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) > 64 {
		return strings.ToValidUTF8(s[:64], "") + "…"
	}
	return s
}

func (q *query) fault(format string, args ...any) {
	q.wrong = append(q.wrong, fmt.Sprintf(format, args...))
}

func (q *query) err() error {
	if len(q.wrong) == 0 {
		return nil
	}
	return posthorn.Errorf(posthorn.Malformed, "The URL's query is wrong: %s.", strings.Join(q.wrong, "; "))
}

func (q *query) has(name string) bool { return q.values.Has(name) }

func (q *query) text(name string) string { return q.values.Get(name) }

// limit is the page size, or otherwise when none is given.
func (q *query) limit(otherwise int) int {
	if !q.has("limit") {
		return otherwise
	}
	n, err := strconv.Atoi(q.text("limit"))
	if err != nil || n < 1 || n > maxLimit {
		q.fault("limit must be a number from 1 to %d", maxLimit)
		return otherwise
	}
	return n
}

// time is a moment, or zero when it is not given.
func (q *query) time(name string) time.Time {
	if !q.has(name) {
		return time.Time{}
	}
	t, err := posthorn.ParseTime(q.text(name))
	switch {
	case err == posthorn.ErrTimeForm:
		q.fault("%s %s (write + as %%2B)", name, err)
	case err != nil:
		q.fault("%s %s", name, err)
	}
	if err != nil {
		return time.Time{}
	}
	return t
}

// pattern is an event type or pattern, or empty when it is not given.
func (q *query) pattern(name string) posthorn.Pattern {
	p := posthorn.Pattern(q.text(name))
	if q.has(name) && !p.Valid() {
		q.fault("%s must be an event type or a pattern, as cases.updated or cases.*", name)
		return ""
	}
	return p
}

// patterns are event types or patterns joined by commas; none when it is not
// given.
func (q *query) patterns(name string) []posthorn.Pattern {
	if !q.has(name) {
		return nil
	}
	var all []posthorn.Pattern
	for text := range strings.SplitSeq(q.text(name), ",") {
		p := posthorn.Pattern(strings.TrimSpace(text))
		if !p.Valid() || len(all) == posthorn.MaxPatterns {
			q.fault("%s must be 1 to %d event types or patterns joined by commas, as cases.updated,assignments.*", name, posthorn.MaxPatterns)
			return nil
		}
		all = append(all, p)
	}
	return all
}

// state is a delivery's state, or empty when it is not given.
func (q *query) state(name string) posthorn.ShownState {
	s := posthorn.ShownState(q.text(name))
	if q.has(name) && !slices.Contains(posthorn.ShownStates(), s) {
		q.fault("%s must be one of %s", name, joined(posthorn.ShownStates()))
		return ""
	}
	return s
}

func joined[T ~string](all []T) string {
	var b strings.Builder
	for i, s := range all {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(string(s))
	}
	return b.String()
}
