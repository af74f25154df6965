package lane

// place is where a lane stands among its tenant's lanes, or a tenant among all:
// whoever holds fewest attempts is first, and of those whoever came first.
type place struct {
	lane *lane // or
	seat *seat

	held  int // attempts, kept by [queue.hold]
	since uint64
	in    *queue // nil while it stands nowhere
	index int
}

func (p *place) before(q *place) bool {
	return p.held < q.held || p.held == q.held && p.since < q.since
}

// queue is a heap of places.
type queue struct{ list []*place }

// first is who is next, or nil.
func (q *queue) first() *place {
	if len(q.list) == 0 {
		return nil
	}
	return q.list[0]
}

// add has the place stand behind all that hold as much.
func (q *queue) add(p *place, held int, since uint64) {
	p.held, p.since, p.in, p.index = held, since, q, len(q.list)
	q.list = append(q.list, p)
	q.up(p)
}

// remove takes the place out; one that stands nowhere stays so.
func (p *place) remove() {
	q := p.in
	if q == nil {
		return
	}
	last := len(q.list) - 1
	moved := q.list[last]
	q.list[last] = nil
	q.list = q.list[:last]
	if moved != p {
		moved.index = p.index
		q.list[moved.index] = moved
		q.fix(moved)
	}
	p.in = nil
}

// hold tells how many attempts the place stands for by now.
func (p *place) hold(held int) {
	if p.held = held; p.in != nil {
		p.in.fix(p)
	}
}

func (q *queue) fix(p *place) {
	q.up(p)
	q.down(p)
}

func (q *queue) up(p *place) {
	for p.index > 0 {
		parent := q.list[(p.index-1)/2]
		if !p.before(parent) {
			return
		}
		q.swap(p, parent)
	}
}

func (q *queue) down(p *place) {
	for {
		child := 2*p.index + 1
		if child >= len(q.list) {
			return
		}
		least := q.list[child]
		if child+1 < len(q.list) && q.list[child+1].before(least) {
			least = q.list[child+1]
		}
		if !least.before(p) {
			return
		}
		q.swap(p, least)
	}
}

func (q *queue) swap(a, b *place) {
	a.index, b.index = b.index, a.index
	q.list[a.index], q.list[b.index] = a, b
}
