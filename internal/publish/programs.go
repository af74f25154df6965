package publish

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/posthorn/posthorn/internal/filter"
	"github.com/posthorn/posthorn/internal/store"
)

// program is a tenant's expression. It is compiled when an event asks for it, and again
// when it was let go meanwhile.
type program struct {
	tenant     int64
	expression string
	kept       *programs
	asked      atomic.Bool // since it was looked at last
	compiling  sync.Mutex
	compiled   atomic.Pointer[compiled] // nil when it is not kept
}

type compiled struct {
	filter *filter.Filter
	err    error
	weight int // in bytes
}

// get returns the compiled expression, and what compiling it took: 0 when it was there.
func (p *program) get() (c *compiled, work time.Duration) {
	if c = p.compiled.Load(); c != nil {
		if !p.asked.Load() {
			p.asked.Store(true)
		}
		return c, 0
	}
	p.compiling.Lock()
	defer p.compiling.Unlock()
	if c = p.compiled.Load(); c != nil {
		return c, 0
	}
	f, err := filter.CompileStored(p.expression)
	c = &compiled{f, err, brokenWeight}
	if f != nil {
		c.weight = f.Weight()
	}
	p.kept.keep(p, c)
	return c, filter.CompileWork(p.expression, f)
}

const (
	// programsWeight bounds what compiled expressions weigh together, in bytes.
	programsWeight = 64 << 20
	// brokenWeight is what one weighs that does not compile.
	brokenWeight = 4096
)

// programs are the compiled expressions, by tenant and text: an index that is made
// again, for any change of the tenant's endpoints, compiles none of them again. Room is
// made by the tenant whose expressions weigh most, so that nobody's push out those of
// who holds less. It is safe for concurrent use.
type programs struct {
	most int // bytes

	mu     sync.Mutex
	weight int
	of     map[int64]*shelf
}

// shelf holds what is kept of one tenant.
type shelf struct {
	weight int
	by     map[string]*program
	line   []*program // in the order in which they were compiled
}

// filters returns those of the endpoints that have one; nil when none has. The same
// expression is the same program.
func (p *programs) filters(tenant int64, set store.EndpointSet) (filters map[int64]*program) {
	var fresh map[string]*program
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range set.Endpoints {
		expression := set.Endpoints[i].Settings.Filter
		if expression == "" {
			continue
		}
		if filters == nil {
			filters, fresh = make(map[int64]*program), make(map[string]*program)
		}
		one := fresh[expression]
		if s := p.of[tenant]; one == nil && s != nil {
			one = s.by[expression]
		}
		if one == nil {
			one = &program{tenant: tenant, expression: expression, kept: p}
		}
		fresh[expression] = one
		filters[set.Endpoints[i].ID] = one
	}
	return filters
}

// keep keeps what was compiled until it is in the way.
func (p *programs) keep(one *program, c *compiled) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.of == nil {
		p.of = make(map[int64]*shelf)
	}
	s := p.of[one.tenant]
	if s == nil {
		s = &shelf{by: make(map[string]*program)}
		p.of[one.tenant] = s
	}
	if other := s.by[one.expression]; other != nil { // of an index that was there before
		s.line = slices.DeleteFunc(s.line, func(o *program) bool { return o == other })
		p.letGo(s, other)
	}
	one.compiled.Store(c)
	s.by[one.expression] = one
	s.line = append(s.line, one)
	s.weight += c.weight
	p.weight += c.weight
	p.makeRoom()
}

// makeRoom is called with mu held.
func (p *programs) makeRoom() {
	for p.weight > p.most {
		tenant, heaviest := int64(0), (*shelf)(nil)
		for of, s := range p.of {
			if heaviest == nil || s.weight > heaviest.weight {
				tenant, heaviest = of, s
			}
		}
		for equal := p.most / len(p.of); p.weight > p.most && heaviest.weight > equal; {
			p.letGo(heaviest, heaviest.oldest())
		}
		if len(heaviest.line) == 0 {
			delete(p.of, tenant)
		}
	}
}

// oldest takes the program from the line that was compiled first and not asked since
// that was looked at last.
func (s *shelf) oldest() *program {
	for {
		one := s.line[0]
		s.line = s.line[1:]
		if !one.asked.Swap(false) {
			return one
		}
		s.line = append(s.line, one)
	}
}

// letGo takes away what is no longer in the line. It is called with mu held.
func (p *programs) letGo(s *shelf, one *program) {
	weight := one.compiled.Swap(nil).weight
	delete(s.by, one.expression)
	s.weight -= weight
	p.weight -= weight
}

// drop lets go of all that is kept of a tenant.
func (p *programs) drop(tenant int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.of[tenant]; s != nil {
		for _, one := range s.line {
			p.letGo(s, one)
		}
		delete(p.of, tenant)
	}
}
