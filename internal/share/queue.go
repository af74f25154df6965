package share

// Queue is a queue in which parties take turns: what comes from one of them leaves in
// its order, and of several parties one thing each, in turn. So whoever has much in it
// keeps nobody else waiting. The zero Queue is empty. It is not safe for concurrent use.
type Queue[K comparable, T any] struct {
	n     int
	by    map[K]*queued[K, T]
	order []*queued[K, T] // those that have anything in it, the next first
}

type queued[K comparable, T any] struct {
	who   K
	items []T
}

// Len is how much is in the queue.
func (q *Queue[K, T]) Len() int { return q.n }

// Push adds a thing of the party's.
func (q *Queue[K, T]) Push(who K, thing T) {
	l := q.by[who]
	if l == nil {
		if q.by == nil {
			q.by = make(map[K]*queued[K, T])
		}
		l = &queued[K, T]{who: who}
		q.by[who] = l
		q.order = append(q.order, l)
	}
	l.items = append(l.items, thing)
	q.n++
}

// Has reports whether the queue has anything of the party's.
func (q *Queue[K, T]) Has(who K) bool { return q.by[who] != nil }

// Parties is how many have anything in the queue.
func (q *Queue[K, T]) Parties() int { return len(q.order) }

// First is what Pop returns next. The queue must not be empty.
func (q *Queue[K, T]) First() T { return q.order[0].items[0] }

// Pop takes out what is next. The queue must not be empty.
func (q *Queue[K, T]) Pop() T {
	l := q.order[0]
	thing := l.items[0]
	var none T
	l.items[0], l.items = none, l.items[1:]
	q.order[0], q.order = nil, q.order[1:]
	q.n--
	if len(l.items) > 0 {
		q.order = append(q.order, l)
	} else {
		delete(q.by, l.who)
	}
	return thing
}
