package publish

import (
	"context"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/filter"
	"github.com/posthorn/posthorn/internal/store"
)

// certain counts the endpoints that no filter is asked about.
func (x *index) certain(ids []int64) int {
	if x.filters == nil {
		return len(ids)
	}
	n := 0
	for _, id := range ids {
		if x.filters[id] == nil {
			n++
		}
	}
	return n
}

// sift asks the filters about the events of one request.
type sift struct {
	*matching
	index *index
	began time.Time
}

// sifted is what filters said of events, by their place in the request: a publish
// that matches again asks none twice.
type sifted map[question]answer

type question struct {
	filter string
	event  int
}

type answer struct {
	matches bool
	err     error
}

// maxSifted bounds what one publish remembers.
const maxSifted = 20_000

// keep remembers an answer, if there was a match before: few publishes ask again.
func (m *matching) keep(q question, a answer) {
	if m.again && len(m.sifted) < maxSifted {
		m.sifted[q] = a
	}
}

// maxSifting bounds the time that the filters of one request take: a tenant may
// have a thousand endpoints, and publish a thousand events at once. Within a commit,
// for which everybody waits, it is what only those take that are new since the matches
// before it.
const (
	maxSifting       = time.Second
	maxSiftingWithin = 2 * time.Millisecond
)

const (
	filterFailed = "The filter failed: "
	allTheSame   = " The event was delivered all the same."
)

// event takes away the targets whose filter says no. One whose filter cannot tell
// gets the event, with a note: what is sent needlessly does less harm than what
// is not sent. The data is parsed when the first filter asks for it.
func (s *sift) event(ctx context.Context, place int, e *store.NewEvent) {
	if s.index.filters == nil {
		return
	}
	if s.began.IsZero() {
		s.began = time.Now().Add(-s.meter.waited)
	}
	var data *filter.Data
	kept := e.Targets[:0]
	for _, t := range e.Targets {
		f := s.index.filters[t.Endpoint]
		if f == nil {
			kept = append(kept, t)
			continue
		}
		q := question{f.expression, place}
		a, asked := s.sifted[q]
		if !asked {
			if t.Note = s.outOfTime(ctx); t.Note != "" {
				kept = append(kept, t)
				continue
			}
			if data == nil {
				data = dataOf(e)
			}
			a.matches, a.err = s.ask(f, e.Type, data)
			s.keep(q, a)
		}
		if a.err != nil {
			t.Note = filterFailed + a.err.Error() + "." + allTheSame
		}
		if a.matches || a.err != nil {
			kept = append(kept, t)
		}
	}
	e.Targets = kept
}

// outOfTime says why no filter is asked any more; "" when one may be asked.
func (s *sift) outOfTime(ctx context.Context) (note string) {
	if !s.meter.ready(ctx, s.patient) {
		return filterFailed + "the tenant's filters have used their time for now." + allTheSame
	}
	// What was waited is not the filters'.
	if time.Since(s.began)-s.meter.waited > s.sifting {
		return filterFailed + "the filters of one request took too long." + allTheSame
	}
	return ""
}

func (s *sift) ask(f *program, eventType string, data *filter.Data) (matches bool, err error) {
	c, compiling := f.get()
	before := data.Work()
	if err = c.err; err == nil {
		matches, err = c.filter.Match(eventType, data)
	}
	s.meter.spent += compiling + data.Work() - before
	return matches, err
}

func dataOf(e *store.NewEvent) *filter.Data {
	ref := len(e.Key)
	if ref == 0 {
		ref = posthorn.GeneratedRefLength
	}
	return filter.NewData(posthorn.BodyData(e.Body, ref, e.Type))
}
