package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// publication is one caller's publish on its way through the publisher.
type publication struct {
	*store.Publication
	ctx         context.Context
	rows, bytes int
	done        chan struct{}

	mu       sync.Mutex
	answered bool
	left     bool // the caller waits no longer
	begun    bool // the publisher has taken it

	// the answer
	accepted []store.Accepted
	err      error

	first []int // per event: the place of an earlier one with the same key, or -1
}

// Publish implements [store.Publisher]. Once the publisher has taken the
// publication, its outcome is waited for until the deadline of writes, whatever
// becomes of ctx; after that it is ErrUnsettled, and what is committed all the same
// is due.
func (s *Store) Publish(ctx context.Context, p store.Publication) ([]store.Accepted, error) {
	if err := s.serving(); err != nil {
		return nil, err
	}
	o := &publication{Publication: &p, ctx: ctx, rows: len(p.Events), done: make(chan struct{})}
	for i := range p.Events {
		e := &p.Events[i]
		if err := store.CheckText(e.Key, e.Type, e.Source, e.Subject, e.SourceID); err != nil {
			return nil, err
		}
		if len(e.Targets) >= posthorn.MaxSequence {
			return nil, store.ErrTooMany
		}
		o.rows += len(e.Targets)
		o.bytes += len(e.Body)
	}
	if p.Once != nil {
		if err := store.CheckText(p.Once.Route, p.Once.Key); err != nil {
			return nil, err
		}
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err := s.publisher.queue.add(o); err != nil {
		return nil, err
	}
	timer := time.NewTimer(s.o.Deadlines.Write)
	defer timer.Stop()
	select {
	case <-o.done:
	case <-timer.C:
		if err := o.leave(); err != nil {
			return nil, err
		}
	}
	return o.accepted, o.err
}

// leave is called by a caller that waits no longer; nil tells that the answer is
// there.
func (o *publication) leave() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.answered:
		return nil
	case o.begun:
		o.left = true
		return store.ErrUnsettled
	}
	o.left = true
	return fmt.Errorf("%w: the publisher does not move", store.ErrUnavailable)
}

// begin reports whether the caller still waits for it to be published.
func (o *publication) begin() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.begun = true
	return !o.left
}

// answer reports whether the caller got it.
func (o *publication) answer(accepted []store.Accepted, err error) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.left {
		o.answered = true
		return false
	}
	o.accepted, o.err, o.answered = accepted, err, true
	close(o.done)
	return true
}

// publisher writes publications: one goroutine, one statement per group.
type publisher struct {
	s       *Store
	queue   *queue[publication]
	running sync.WaitGroup
	moves   store.Moves
	within  chan struct{} // is held by those that match within their commit
	ids     sync.Mutex
	last    posthorn.ID // the highest id given out
	room    sync.Mutex
	lead    time.Duration
}

func newPublisher(ctx context.Context, s *Store) (*publisher, error) {
	p := &publisher{s: s, within: make(chan struct{}, withinAtOnce), queue: newQueue(false, func(o *publication) (int64, int, int) { return o.Tenant, o.rows, o.bytes })}
	if err := p.readLast(ctx); err != nil {
		return nil, err
	}
	var lead int64
	err := s.other.QueryRow(ctx, `SELECT coalesce((SELECT value FROM meta WHERE key = 'lead'), $1)`, int64(minLead)).Scan(&lead)
	p.lead = time.Duration(lead)
	return p, err
}

// readLast finds the highest id that is stored, so that ids go on above it.
func (p *publisher) readLast(ctx context.Context) error {
	var last int64
	err := p.s.other.QueryRow(ctx, `SELECT greatest((SELECT max(id) FROM events), (SELECT max(id) FROM due), (SELECT max(id) FROM deliveries),
		(SELECT value FROM meta WHERE key = 'last_id'), 0)`).Scan(&last)
	p.ids.Lock()
	defer p.ids.Unlock()
	p.last = max(p.last, posthorn.ID(last))
	return err
}

// allocate gives out n contiguous ids above all before and not before at.
func (p *publisher) allocate(node uint8, at time.Time, n int) (posthorn.ID, error) {
	p.ids.Lock()
	defer p.ids.Unlock()
	first, err := store.NextIDs(p.last, node, at, n)
	if err == nil {
		p.last = first + posthorn.ID(n-1)
	}
	return first, err
}

func (p *publisher) run() {
	for {
		group := p.queue.take()
		if len(group) == 0 {
			return
		}
		p.moves.Begin()
		done := p.write(group)
		p.queue.written()
		p.moves.End(done || p.queue.empty())
	}
}

// write commits a group and answers its callers. When anything in it fails, it
// is repeated one caller at a time, so that nobody fails for another's fault. done
// tells that the database answered.
func (p *publisher) write(group []*publication) (done bool) {
	live := group[:0]
	for _, o := range group {
		if err := o.ctx.Err(); err != nil {
			o.answer(nil, err)
			continue
		}
		if o.begin() {
			live = append(live, o)
		}
	}
	// Those that match within the commit wait for the changes of their tenant, and
	// nobody else does.
	return p.together(slices.DeleteFunc(live, func(o *publication) bool {
		if o.Match == nil {
			return false
		}
		p.running.Go(func() {
			p.within <- struct{}{}
			defer func() { <-p.within }()
			p.alone(o)
		})
		return true
	}))
}

// withinAtOnce is how many publications match within their commit at a time.
const withinAtOnce = 4

// together commits a group.
func (p *publisher) together(live []*publication) (done bool) {
	for len(live) > 0 {
		later, err := p.try(live)
		switch {
		case err == nil:
			live = later
		case errors.Is(err, errBeside): // those of the batch are answered there
			for _, o := range later {
				o.answer(nil, classify(err))
			}
			return false
		case errors.Is(classify(err), store.ErrUnavailable) && !isCode(err, codeDeadlock, codeSerialize):
			for _, o := range live {
				if !o.answered {
					o.answer(nil, classify(err))
				}
			}
			return false
		default:
			for _, o := range live {
				if !o.answered {
					p.alone(o)
				}
			}
			return true
		}
	}
	return true
}

// errBeside: it is being found out beside what became of a batch.
var errBeside = fmt.Errorf("%w", store.ErrUnsettled)

// alone writes one publication, again when it lost a race.
func (p *publisher) alone(o *publication) {
	for i := 0; ; i++ {
		_, err := p.try([]*publication{o})
		if err == nil || errors.Is(err, errBeside) {
			return
		}
		if r, ok := err.(refusedMatch); ok {
			o.answer(nil, r.error)
			return
		}
		if !isCode(err, codeUnique, codeDeadlock, codeSerialize) || i == retries {
			o.answer(nil, classify(err))
			return
		}
		// Another node may have given out the same ids before it lost its run.
		if err := p.readLast(o.ctx); err != nil {
			o.answer(nil, classify(err))
			return
		}
	}
}

// try writes the group in one statement, preceded by another one when there are
// keys to look up. It answers everybody but those who come later: they depend on
// others of the group.
func (p *publisher) try(group []*publication) (later []*publication, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(group[0].ctx), p.s.o.Deadlines.Write)
	defer cancel()
	run, node, err := p.s.lease.working()
	if err != nil {
		return nil, err
	}
	pool := p.s.hot
	if group[0].Match != nil {
		pool = p.s.other
	}
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Release()
	known, err := lookup(ctx, conn, group)
	if err != nil {
		return nil, err
	}
	b := newBatch(p, run, node)
	if o := group[0]; o.Match != nil { // it is alone
		if _, err := conn.Exec(ctx, "BEGIN"); err != nil {
			return nil, err
		}
		defer rollback(ctx, conn)
		b.begun = true
		if err := o.matchAgain(ctx, conn); err != nil {
			return nil, err
		}
	}
	for _, o := range group {
		switch wait, err := b.add(o, known); {
		case err != nil:
			o.answer(nil, err)
		case wait:
			later = append(later, o)
		}
	}
	if len(b.pubs) == 0 {
		return later, nil
	}
	if err := p.makeRoom(ctx, b); err != nil {
		return nil, b.failed(err)
	}
	ok, err := b.insert(ctx, conn)
	if errors.Is(err, errBeside) {
		return later, err
	}
	if err != nil {
		return nil, b.failed(err)
	}
	b.settle(ctx, conn, ok)
	return later, nil
}

// rollback ends a transaction that did not commit; after a commit it does nothing.
func rollback(ctx context.Context, conn *pgxpool.Conn) {
	if c := conn.Conn(); c.IsClosed() || c.PgConn().TxStatus() == 'I' {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if _, err := conn.Exec(ctx, "ROLLBACK"); err != nil {
		_ = conn.Conn().Close(ctx) // it has the same effect
	}
}

// matchAgain matches within the transaction, if the endpoints are others by now. The
// lock keeps them as they are until the commit: a change takes it first. It is the
// tenant's row, so that only the tenant waits.
func (o *publication) matchAgain(ctx context.Context, conn *pgxpool.Conn) error {
	set := store.EndpointSet{Shared: true}
	err := conn.QueryRow(ctx, `SELECT set_version FROM tenants WHERE id = $1 AND deleted_at = 0 FOR SHARE`, o.Tenant).Scan(&set.Version)
	switch {
	case errors.Is(err, pgx.ErrNoRows), err == nil && set.Version == o.SetVersion:
		return nil // what follows finds out that the tenant is gone
	case err != nil:
		return err
	}
	rows, err := conn.Query(ctx, endpointsOfSet, o.Tenant)
	if err == nil {
		err = eachRow(rows, func(r scanner) error {
			e, err := scanEndpoint(r)
			set.Endpoints = append(set.Endpoints, e)
			return err
		})
	}
	if err != nil {
		return err
	}
	o.mu.Lock() // the caller may stop waiting; it must not be called then
	defer o.mu.Unlock()
	if o.left {
		return store.ErrUnavailable
	}
	if err := o.Match(set); err != nil {
		return refusedMatch{err}
	}
	o.SetVersion = set.Version
	for i := range o.Events {
		if len(o.Events[i].Targets) >= posthorn.MaxSequence {
			return refusedMatch{store.ErrTooMany}
		}
	}
	return nil
}

// refusedMatch is what Match refused with.
type refusedMatch struct{ error }

// noteLead notes how far ids run ahead of their time, before any does.
func (p *publisher) noteLead(ctx context.Context, lead time.Duration) error {
	p.room.Lock()
	defer p.room.Unlock()
	if lead > p.lead {
		lead *= 2
		_, err := p.s.other.Exec(ctx, `INSERT INTO meta (key, value) VALUES ('lead', $1)
			ON CONFLICT (key) DO UPDATE SET value = greatest(meta.value, excluded.value)`, int64(lead))
		if err != nil {
			return err
		}
		p.lead = lead
	}
	return nil
}

// makeRoom prepares what a batch needs: partitions, the ids' lead.
func (p *publisher) makeRoom(ctx context.Context, b *batch) error {
	if err := p.noteLead(ctx, b.lead); err != nil {
		return err
	}
	if len(b.events.id) == 0 {
		return nil
	}
	return p.s.ensurePartitions(ctx, posthorn.ID(b.events.id[0]), b.last)
}

// lookedUp is what stands in the database about the keys of a group.
type lookedUp struct {
	keys    map[key]keyRow
	tenants map[int64]bool // those that live, of publications with keys
}

type key struct {
	tenant int64
	kind   int16
	text   string
}

type keyRow struct {
	hash, answer []byte
	event        posthorn.ID
	expires      int64
	occurred     int64
	deliveries   int
}

// lookup reads what is stored about the publishers' own ids and the
// Idempotency-Keys of a group; nothing when it has none.
func lookup(ctx context.Context, conn *pgxpool.Conn, group []*publication) (known lookedUp, err error) {
	var tenants, owners []int64
	var kinds []int16
	var texts []string
	add := func(k key) {
		tenants, kinds, texts = append(tenants, k.tenant), append(kinds, k.kind), append(texts, k.text)
	}
	for _, o := range group {
		before := len(texts)
		if o.Once != nil {
			add(key{o.Once.Tenant, keyOfOnce, onceKey(o.Once)})
		}
		for i := range o.Events {
			if o.Events[i].Key != "" {
				add(key{o.Tenant, keyOfEvent, o.Events[i].Key})
			}
		}
		if len(texts) > before {
			owners = append(owners, o.Tenant)
		}
	}
	if len(texts) == 0 {
		return known, nil
	}
	known = lookedUp{keys: map[key]keyRow{}, tenants: map[int64]bool{}}
	rows, err := conn.Query(ctx, `SELECT i.tenant, i.kind, i.key, i.hash, i.answer, i.event, i.expires, coalesce(e.occurred_at, 0), coalesce(e.deliveries, 0)
		FROM unnest($1::bigint[], $2::smallint[], $3::text[]) u (tenant, kind, key)
		JOIN idempotency i ON i.tenant = u.tenant AND i.kind = u.kind AND i.key = u.key LEFT JOIN events e ON e.id = i.event
		UNION ALL SELECT id, 0, '', NULL, NULL, 0, 0, 0, 0 FROM tenants WHERE id = ANY ($4) AND deleted_at = 0`, tenants, kinds, texts, owners)
	if err != nil {
		return known, err
	}
	return known, eachRow(rows, func(r scanner) error {
		var k key
		var row keyRow
		err := r.Scan(&k.tenant, &k.kind, &k.text, &row.hash, &row.answer, (*int64)(&row.event), &row.expires, &row.occurred, &row.deliveries)
		if k.kind == 0 {
			known.tenants[k.tenant] = true
		} else {
			known.keys[k] = row
		}
		return err
	})
}

// repeated finds the events of a publication that were published before. fresh
// tells that there are others.
func (o *publication) repeated(known lookedUp) (accepted []store.Accepted, fresh bool, err error) {
	accepted = make([]store.Accepted, len(o.Events))
	o.first = make([]int, len(o.Events))
	var seen map[string]int
	for i := range o.Events {
		e := &o.Events[i]
		o.first[i] = -1
		if e.Key == "" {
			fresh = true
			continue
		}
		if j, ok := seen[e.Key]; ok {
			if o.Events[j].Hash != e.Hash {
				return nil, false, &store.EventConflict{Index: i}
			}
			if accepted[i] = accepted[j]; !accepted[j].Repeated {
				accepted[i].Repeated, o.first[i] = true, j
			}
			continue
		}
		if seen == nil {
			seen = make(map[string]int)
		}
		seen[e.Key] = i
		row, ok := known.keys[key{o.Tenant, keyOfEvent, e.Key}]
		if !ok {
			fresh = true
			continue
		}
		if !bytes.Equal(row.hash, e.Hash[:]) {
			return nil, false, &store.EventConflict{Index: i}
		}
		accepted[i] = store.Accepted{ID: row.event, OccurredAt: fromNanos(row.occurred), Deliveries: row.deliveries, Repeated: true}
	}
	return accepted, fresh, nil
}
