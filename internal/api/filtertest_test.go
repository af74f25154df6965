package api

import (
	"context"
	"strings"
	"testing"

	"github.com/posthorn/posthorn/internal/publish"
)

// setters counts whose filters are set.
type setters struct {
	Publisher
	of map[int64]int
}

func (s *setters) SetFilter(ctx context.Context, tenant int64) (*publish.FilterTurn, error) {
	s.of[tenant]++
	return s.Publisher.SetFilter(ctx, tenant)
}

// A tenant whose filters have used their time tries none; it can set another one all
// the same, and other tenants see nothing of it.
func TestWhoHasUsedItsFilterTimeTriesNone(t *testing.T) {
	s := &setters{of: map[int64]int{}}
	w := newWorld(t, func(c *Config) { s.Publisher = c.Publish; c.Publish = s })
	mine := "/endpoints/" + w.endpoint("acme", validEndpoint)
	theirs := "/endpoints/" + w.endpoint("other", validEndpoint)
	w.do("acme", "PATCH", mine+"/settings", `{"filter":"data."}`).faults(422, "/filter")
	w.do("acme", "PATCH", mine+"/settings", `{"filter":"true"}`).want(200)
	w.do("acme", "PATCH", mine+"/settings", `{"filter":null}`).want(200)
	acme := w.tenant("acme").ID
	if s.of[acme] != 2 || len(s.of) != 1 {
		t.Errorf("filters were compiled in the time of %v", s.of)
	}
	turn, err := s.TryFilters(t.Context(), acme)
	if err != nil {
		t.Fatal(err)
	}
	f, err := turn.Compile(`data.text.matches("(x+x+)+y|(a|b|ab)*(ba|a?b){30}c")`)
	if err != nil {
		t.Fatal(err)
	}
	for range 2000 { // a little in truth, and twelve seconds by what it counts for
		_, _ = turn.Match(f, "cases.updated", []byte(`{"text":"`+strings.Repeat("a", 1000)+`"}`))
	}
	turn.Leave()
	w.do("acme", "POST", mine+"/filter/test", `{"filter":"true"}`).want(429).says("filters have used their time")
	w.do("other", "POST", theirs+"/filter/test", `{"filter":"true"}`).want(200)
	w.do("acme", "POST", "/events", `{"type":"cases.updated","data":{}}`).want(202)
}
