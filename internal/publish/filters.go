package publish

import (
	"sync"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/filter"
	"github.com/posthorn/posthorn/internal/store"
)

// program is an expression that is compiled when the first event asks for it.
type program struct {
	expression string
	once       sync.Once
	filter     *filter.Filter
	err        error
}

func (p *program) match(eventType string, d *filter.Data) (bool, error) {
	p.once.Do(func() { p.filter, p.err = filter.Compile(p.expression) })
	if p.err != nil {
		return false, p.err
	}
	return p.filter.Match(eventType, d)
}

// programs are the compiled expressions, by their text: an index that is made
// anew, for any change of the tenant's endpoints, compiles none of them again.
type programs struct {
	mu sync.Mutex
	by map[string]*program
}

// maxPrograms bounds the expressions that are kept, at some ten kilobytes each.
const maxPrograms = 4096

// of returns the filters of the endpoints that have one; nil when none has.
func (p *programs) of(set store.EndpointSet) (filters map[int64]*program) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range set.Endpoints {
		expression := set.Endpoints[i].Settings.Filter
		if expression == "" {
			continue
		}
		one := p.by[expression]
		if one == nil {
			if p.by == nil || len(p.by) >= maxPrograms {
				p.by = make(map[string]*program) // indexes keep what they have
			}
			one = &program{expression: expression}
			p.by[expression] = one
		}
		if filters == nil {
			filters = make(map[int64]*program)
		}
		filters[set.Endpoints[i].ID] = one
	}
	return filters
}

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
	filter *program
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

const filterFailed = "The filter failed: "

// event takes away the targets whose filter says no. One whose filter cannot tell
// gets the event, with a note: what is sent needlessly does less harm than what
// is not sent. The data is parsed when the first filter asks for it.
func (s *sift) event(place int, e *store.NewEvent) {
	if s.index.filters == nil {
		return
	}
	if s.began.IsZero() {
		s.began = time.Now()
	}
	var data *filter.Data
	kept := e.Targets[:0]
	for _, t := range e.Targets {
		f := s.index.filters[t.Endpoint]
		if f == nil {
			kept = append(kept, t)
			continue
		}
		q := question{f, place}
		a, asked := s.sifted[q]
		if !asked && time.Since(s.began) > s.sifting {
			t.Note = filterFailed + "the filters of one request took too long. The event was delivered all the same."
			kept = append(kept, t)
			continue
		}
		if !asked && data == nil {
			ref := len(e.Key)
			if ref == 0 {
				ref = posthorn.GeneratedRefLength
			}
			data = filter.NewData(posthorn.BodyData(e.Body, ref, e.Type))
		}
		if !asked {
			a.matches, a.err = f.match(e.Type, data)
			s.keep(q, a)
		}
		if a.err != nil {
			t.Note = filterFailed + a.err.Error() + ". The event was delivered all the same."
		}
		if a.matches || a.err != nil {
			kept = append(kept, t)
		}
	}
	e.Targets = kept
}
