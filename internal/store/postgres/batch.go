package postgres

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// batch gathers the rows of a group of publications, column by column, as the
// statement takes them. In each, pub is the place of its publication in pubs.
type batch struct {
	p    *publisher
	run  int64
	node uint8

	pubs   []*publication
	begun  bool        // the statement stands in a transaction that was begun
	gen    uint64      // of what it takes into this node's memory
	opened opened      // what the batch opens, by tenant
	last   posthorn.ID // the highest id that it uses
	lead   time.Duration
	used   map[key]bool // keys that this batch stores
	stale  []key        // keys that are over and in the way
	at     int64

	tenants, versions []int64 // by publication

	events struct {
		pub, id, tenant, occurred, accepted, deliver, deliveries, size, kind []int64
		key, typ, source, subject, sourceID                                  []string
		body                                                                 [][]byte
	}
	due     struct{ pub, id, event, tenant, endpoint, run, next []int64 }
	tests   []int64 // events that are tests: what was asked for by hand
	lines   lines
	outbox  struct{ pub, id []int64 }
	expired struct{ pub, id, event, tenant, endpoint, hour []int64 }
	notes   struct {
		pub, event []int64
		text       []string
	}
	keys struct {
		pub, tenant, kind, event, expires []int64
		text                              []string
		hash, answer                      [][]byte
	}
}

func newBatch(p *publisher, run int64, node uint8) *batch {
	return &batch{p: p, run: run, node: node, opened: opened{}, used: map[key]bool{}, tests: []int64{}}
}

// add takes in a publication, or says that it must wait for another one of the
// batch, or refuses it.
func (b *batch) add(o *publication, known lookedUp) (wait bool, err error) {
	hasKeys := false
	var once key
	if o.Once != nil {
		hasKeys, once = true, key{o.Once.Tenant, keyOfOnce, onceKey(o.Once)}
		wait = b.used[once]
	}
	for i := range o.Events {
		if k := o.Events[i].Key; k != "" {
			hasKeys, wait = true, wait || b.used[key{o.Tenant, keyOfEvent, k}]
		}
	}
	if wait {
		return true, nil
	}
	if hasKeys && !known.tenants[o.Tenant] {
		return false, store.ErrNotFound
	}
	if o.Once != nil {
		if row, ok := known.keys[once]; ok {
			if row.expires > nanos(o.At) {
				return false, onceError(o.Once, row.hash, row.answer)
			}
			b.stale = append(b.stale, once)
		}
	}
	accepted, fresh, err := o.repeated(known)
	if err != nil {
		return false, err
	}
	pub := int64(len(b.pubs))
	version := o.SetVersion
	if !fresh {
		version = anyVersion
	}
	for i := range o.Events {
		switch {
		case !accepted[i].Repeated:
			if accepted[i], err = b.addEvent(pub, o, &o.Events[i]); err != nil {
				return false, err
			}
		case o.first[i] >= 0: // repeats an earlier one of this publication
			accepted[i] = accepted[o.first[i]]
			accepted[i].Repeated, accepted[i].Open = true, 0
		}
	}
	if o.Once == nil && !fresh && len(o.Outbox) == 0 {
		if !known.tenants[o.Tenant] && len(o.Events) > 0 {
			return false, store.ErrNotFound
		}
		if len(o.Events) > 0 {
			o.answer(accepted, nil) // nothing to write
			return false, nil
		}
	}
	if o.Once != nil {
		answer := o.Once.Answer
		if o.Answer != nil {
			answer = o.Answer(accepted)
		}
		b.addKey(pub, once, o.Once.Hash, 0, answer, nanos(o.Once.Expires))
	}
	for _, id := range o.Outbox {
		b.outbox.pub, b.outbox.id = append(b.outbox.pub, pub), append(b.outbox.id, id)
	}
	o.accepted = accepted
	b.pubs = append(b.pubs, o)
	b.tenants, b.versions = append(b.tenants, o.Tenant), append(b.versions, version)
	b.at = max(b.at, nanos(o.At))
	return false, nil
}

// anyVersion stands for publications that match nothing anew.
const anyVersion = -1 << 62

func (b *batch) addKey(pub int64, k key, hash [32]byte, event posthorn.ID, answer []byte, expires int64) {
	b.used[k] = true
	c := &b.keys
	c.pub, c.tenant, c.kind, c.text = append(c.pub, pub), append(c.tenant, k.tenant), append(c.kind, int64(k.kind)), append(c.text, k.text)
	c.hash, c.event, c.answer, c.expires = append(c.hash, hash[:]), append(c.event, int64(event)), append(c.answer, answer), append(c.expires, expires)
}

func (b *batch) addEvent(pub int64, o *publication, e *store.NewEvent) (store.Accepted, error) {
	at := o.At
	if now := b.p.s.now(); now.After(at) {
		at = now
	}
	id, err := b.p.allocate(b.node, at, 1+len(e.Targets))
	if err != nil {
		return store.Accepted{}, err
	}
	b.last = id + posthorn.ID(len(e.Targets))
	b.lead = max(b.lead, id.Time().Sub(o.At))
	if e.Key == "" {
		posthorn.FillRef(e.Body, id)
	} else {
		b.addKey(pub, key{o.Tenant, keyOfEvent, e.Key}, e.Hash, id, nil, 0)
	}
	if notes := store.Notes(e.Targets); notes != "" {
		n := &b.notes
		n.pub, n.event, n.text = append(n.pub, pub), append(n.event, int64(id)), append(n.text, notes)
	}
	c := &b.events
	c.pub, c.id, c.tenant = append(c.pub, pub), append(c.id, int64(id)), append(c.tenant, o.Tenant)
	c.occurred, c.accepted, c.deliver = append(c.occurred, nanos(e.OccurredAt)), append(c.accepted, nanos(o.At)), append(c.deliver, nanos(e.DeliverAt))
	c.deliveries, c.size, c.kind = append(c.deliveries, int64(len(e.Targets))), append(c.size, int64(len(e.Body))), append(c.kind, int64(e.Kind))
	if e.Kind == posthorn.EventTest {
		b.tests = append(b.tests, int64(id))
	}
	c.key, c.typ, c.body = append(c.key, e.Key), append(c.typ, e.Type), append(c.body, e.Body)
	c.source, c.subject, c.sourceID = append(c.source, e.Source), append(c.subject, e.Subject), append(c.sourceID, e.SourceID)
	return store.Accepted{ID: id, OccurredAt: e.OccurredAt, Deliveries: len(e.Targets), Open: b.addDeliveries(pub, o, e, id)}, nil
}

// addDeliveries adds the event's deliveries, as many open ones as the tenant's
// backlog has room for.
func (b *batch) addDeliveries(pub int64, o *publication, e *store.NewEvent, event posthorn.ID) (open int) {
	open = len(e.Targets)
	if o.BacklogLimit > 0 {
		open = min(open, max(0, o.BacklogLimit-b.p.s.open.tenant(o.Tenant)-b.opened[o.Tenant]))
	}
	b.opened[o.Tenant] += open
	later := e.DeliverAt.After(o.At)
	for i, t := range e.Targets {
		id := int64(event) + 1 + int64(i)
		if i >= open {
			x := &b.expired
			x.pub, x.id, x.event, x.tenant = append(x.pub, pub), append(x.id, id), append(x.event, int64(event)), append(x.tenant, o.Tenant)
			hour := o.At.Unix() / 3600
			if e.Kind == posthorn.EventTest {
				hour = 0 // tests are not counted
			}
			x.endpoint, x.hour = append(x.endpoint, t.Endpoint), append(x.hour, hour)
			continue
		}
		run, next := b.run, nanos(o.At)
		switch {
		case later:
			run, next = waiting, nanos(e.DeliverAt)
		case t.Parked:
			if run = parked; t.Ordered {
				b.lines.add(t.Endpoint, id)
			}
		}
		d := &b.due
		d.pub, d.id, d.event, d.tenant = append(d.pub, pub), append(d.id, id), append(d.event, int64(event)), append(d.tenant, o.Tenant)
		d.endpoint, d.run, d.next = append(d.endpoint, t.Endpoint), append(d.run, run), append(d.next, next)
	}
	return open
}

// The statement stores, of the publications whose tenant lives and has the version
// of endpoints that they matched, everything, as long as this node's run is not
// taken. It returns the places of those.
//
// Of those that take rows of the outbox, only those are stored that find all of
// theirs there and not being published by another node.
const (
	pickOutbox = `WITH picked AS (
	SELECT id FROM outbox WHERE id = ANY ($%[2]d::bigint[]) AND refused_at = 0 FOR UPDATE SKIP LOCKED
), o AS (
	SELECT o.pub, o.id, bool_and(p.id IS NOT NULL) OVER (PARTITION BY o.pub) AS whole
	FROM unnest($%[1]d::bigint[], $%[2]d::bigint[]) o (pub, id) LEFT JOIN picked p USING (id)
), `
	wholeOutbox = `		AND NOT EXISTS (SELECT 1 FROM o WHERE o.pub = p.n - 1 AND NOT o.whole)
`
	dropOutbox = `, g AS (
	DELETE FROM outbox USING o JOIN ok USING (pub) WHERE outbox.id = o.id
)`
)

const insertHead = `ok AS (
	SELECT p.n - 1 AS pub FROM unnest($1::bigint[], $2::bigint[]) WITH ORDINALITY p (tenant, version, n)
		JOIN tenants t ON t.id = p.tenant AND t.deleted_at = 0 AND (p.version = t.set_version OR p.version = ` + anyVersionText + `)
		WHERE EXISTS (SELECT 1 FROM runs WHERE id = $3 AND taken_at = 0)
`

const insertTail = `), e AS (
	INSERT INTO events (id, tenant, occurred_at, accepted_at, deliver_at, deliveries, size, kind, key, type, source, subject, source_id, body)
	SELECT e.id, e.tenant, e.occurred, e.accepted, e.deliver, e.deliveries, e.size, e.kind, e.key, e.typ, e.source, e.subject, e.source_id, e.body
	FROM unnest($4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[],
		$13::text[], $14::text[], $15::text[], $16::text[], $17::text[], $18::bytea[])
		e (pub, id, tenant, occurred, accepted, deliver, deliveries, size, kind, key, typ, source, subject, source_id, body) JOIN ok USING (pub)
)`

const insertDue = `, d AS (
	INSERT INTO due (id, event, tenant, endpoint, run, next_at, manual)
	SELECT d.id, d.event, d.tenant, d.endpoint, d.run, d.next_at, d.event = ANY ($%d::bigint[])
	FROM unnest($19::bigint[], $20::bigint[], $21::bigint[], $22::bigint[], $23::bigint[], $24::bigint[], $25::bigint[])
		d (pub, id, event, tenant, endpoint, run, next_at) JOIN ok USING (pub)
)`

// insertRest is for what is rare: keys, and deliveries beyond the backlog.
const insertRest = `, k AS (
	INSERT INTO idempotency (tenant, kind, key, hash, event, answer, expires)
	SELECT k.tenant, k.kind, k.key, k.hash, k.event, k.answer, k.expires
	FROM unnest($26::bigint[], $27::bigint[], $28::bigint[], $29::text[], $30::bytea[], $31::bigint[], $32::bytea[], $33::bigint[])
		k (pub, tenant, kind, key, hash, event, answer, expires) JOIN ok USING (pub)
), x AS (
	INSERT INTO deliveries (id, event, tenant, endpoint, replay_id, tries, attempts, waits, round, state, late, reason, counted, log)
	SELECT x.id, x.event, x.tenant, x.endpoint, 0, 0, 0, 0, 0, $41::smallint, false, $40::text, x.hour, NULL
	FROM unnest($34::bigint[], $35::bigint[], $36::bigint[], $37::bigint[], $38::bigint[], $39::bigint[]) x (pub, id, event, tenant, endpoint, hour) JOIN ok USING (pub)
), s AS (
	INSERT INTO endpoint_stats (endpoint, hour, expired)
	SELECT x.endpoint, x.hour, count(*) FROM unnest($34::bigint[], $38::bigint[], $39::bigint[]) x (pub, endpoint, hour) JOIN ok USING (pub)
	WHERE x.hour <> 0 GROUP BY 1, 2 ORDER BY 1, 2
	ON CONFLICT (endpoint, hour) DO UPDATE SET expired = endpoint_stats.expired + excluded.expired
)`

// insertNotes is rarer still.
const insertNotes = `, n AS (
	INSERT INTO event_notes (event, notes)
	SELECT n.event, n.notes FROM unnest($%d::bigint[], $%d::bigint[], $%d::text[]) n (pub, event, notes) JOIN ok USING (pub)
)`

const anyVersionText = `-4611686018427387904`

// insert runs the statement and returns the places of what was stored. When its
// answer is lost, it finds out what became of it.
func (b *batch) insert(ctx context.Context, conn *pgxpool.Conn) (ok []bool, err error) {
	if len(b.stale) > 0 {
		if err := b.dropStale(ctx, conn); err != nil {
			return nil, err
		}
	}
	e, d := &b.events, &b.due
	args := []any{b.tenants, b.versions, b.run,
		e.pub, e.id, e.tenant, e.occurred, e.accepted, e.deliver, e.deliveries, e.size, e.kind, e.key, e.typ, e.source, e.subject, e.sourceID, e.body,
		d.pub, d.id, d.event, d.tenant, d.endpoint, d.run, d.next}
	due, rest := insertDue, ""
	inLine := len(b.lines.n) > 0
	if inLine || len(b.keys.pub)+len(b.expired.pub) > 0 {
		k, x := &b.keys, &b.expired
		rest = insertRest
		args = append(args, k.pub, k.tenant, k.kind, k.text, k.hash, k.event, k.answer, k.expires,
			x.pub, x.id, x.event, x.tenant, x.endpoint, x.hour, string(posthorn.ReasonBacklogFull), int64(posthorn.Expired))
	}
	if inLine {
		due = insertDueInLine
		args = append(args, b.lines.args(d.id)...)
	}
	if n := &b.notes; len(n.pub) > 0 {
		rest += fmt.Sprintf(insertNotes, len(args)+1, len(args)+2, len(args)+3)
		args = append(args, n.pub, n.event, n.text)
	}
	due = fmt.Sprintf(due, len(args)+1)
	args = append(args, b.tests)
	query := "WITH " + insertHead + insertTail + due + rest
	if o := &b.outbox; len(o.pub) > 0 {
		query = fmt.Sprintf(pickOutbox, len(args)+1, len(args)+2) + insertHead + wholeOutbox + insertTail + due + rest + dropOutbox
		args = append(args, o.pub, o.id)
	}
	b.gen = b.p.s.holdings.take(b.run, b.own(nil)...)
	places, err := collect(conn.Query(ctx, query+` SELECT pub FROM ok`, args...))
	unsent := err != nil && pgconn.SafeToRetry(err)
	if err == nil && b.begun {
		_, err = conn.Exec(ctx, "COMMIT") // pgx says of some that were sent that they may be repeated
	}
	switch {
	case err == nil:
		return b.marked(places), nil
	case !conn.Conn().IsClosed(), unsent, len(b.events.id) == 0:
		// Refused, or not sent, or only an answer to keep, which is safe to fail: it is
		// looked up again.
		b.p.s.holdings.drop(holdsOf(b.own(nil), b.gen)...)
		return nil, err
	}
	b.findOut(partyOf(conn.Conn()), err)
	return nil, errBeside
}

// own are the deliveries that the batch gives to this node's run, of the
// publications that are marked, or all.
func (b *batch) own(of []bool) (ids []posthorn.ID) {
	for i, pub := range b.due.pub {
		if b.due.run[i] == b.run && (of == nil || of[pub]) {
			ids = append(ids, posthorn.ID(b.due.id[i]))
		}
	}
	return ids
}

func collect(rows pgx.Rows, err error) (list []int64, _ error) {
	if err != nil {
		return nil, err
	}
	err = eachRow(rows, func(r scanner) error {
		var n int64
		err := r.Scan(&n)
		list = append(list, n)
		return err
	})
	return list, err
}

func (b *batch) marked(places []int64) []bool {
	ok := make([]bool, len(b.pubs))
	for _, n := range places {
		ok[n] = true
	}
	return ok
}

// findOut finds out beside whether a statement without an answer was committed: all
// that it stores became visible at once. It answers those that wait for it.
func (b *batch) findOut(broken party, why error) {
	s := b.p.s
	s.log.Warn("a publish was not answered by the database; finding out what became of it", "error", why)
	s.beside(func() {
		var stored []int64
		_, err := s.settle(broken, func(ctx context.Context, c *pgxpool.Conn) (fate, error) {
			var err error
			stored, err = collect(c.Query(ctx, `SELECT id FROM events WHERE id = ANY ($1)`, b.events.id))
			return fateCommitted, err
		})
		if err == nil && len(stored) == 0 {
			err = why
		}
		if err != nil {
			s.holdings.drop(holdsOf(b.own(nil), b.gen)...)
			for _, o := range b.pubs {
				o.answer(nil, classify(err))
			}
			return
		}
		there := map[int64]bool{}
		for _, id := range stored {
			there[id] = true
		}
		ok := make([]bool, len(b.pubs))
		for i, id := range b.events.id {
			ok[b.events.pub[i]] = ok[b.events.pub[i]] || there[id]
		}
		ctx, cancel := context.WithTimeout(s.stop, s.o.Deadlines.Write)
		defer cancel()
		conn, err := s.hot.Acquire(ctx)
		if err == nil {
			defer conn.Release()
		}
		b.settle(ctx, conn, ok)
	})
}

// dropStale removes Idempotency-Keys that are over, so that they can be used
// again.
func (b *batch) dropStale(ctx context.Context, conn *pgxpool.Conn) error {
	var tenants []int64
	var texts []string
	for _, k := range b.stale {
		tenants, texts = append(tenants, k.tenant), append(texts, k.text)
	}
	_, err := conn.Exec(ctx, `DELETE FROM idempotency i USING unnest($1::bigint[], $2::text[]) u (tenant, key)
		WHERE i.tenant = u.tenant AND i.kind = 2 AND i.key = u.key AND i.expires <= $3`, tenants, texts, b.at)
	return err
}

// settle answers everybody: those that were stored, and why the others were not;
// conn may be nil. What was stored for callers that wait no longer is given back.
func (b *batch) settle(ctx context.Context, conn *pgxpool.Conn, ok []bool) {
	s := b.p.s
	var alive map[int64]int64
	runTaken := false
	var unknown error
	if slices.Contains(ok, false) {
		alive, runTaken, unknown = b.whyNot(ctx, conn)
	}
	kept := store.Keeps{}
	for i, pub := range b.events.pub {
		if ok[pub] {
			kept.Add(b.events.tenant[i], posthorn.ID(b.events.id[i]), store.Weight(int(b.events.size[i]), int(b.events.deliveries[i])))
		}
	}
	s.kept.added(kept)
	moved, lowest := opened{}, int64(0)
	for i, pub := range b.due.pub {
		if !ok[pub] {
			continue
		}
		moved[b.due.tenant[i]]++
		if next := b.due.next[i]; b.due.run[i] == waiting && (lowest == 0 || next < lowest) {
			lowest = next
		}
	}
	s.open.apply(moved)
	if lowest != 0 {
		s.floor.lower(lowest)
	}
	refused, left := make([]bool, len(ok)), make([]bool, len(ok))
	for i, o := range b.pubs {
		switch {
		case ok[i]:
			for e := range o.accepted {
				o.accepted[e].Gen = b.gen
			}
			left[i] = !o.answer(o.accepted, nil)
			continue
		case unknown != nil:
			o.answer(nil, classify(unknown))
		case runTaken:
			o.answer(nil, errRunTaken)
		case alive[o.Tenant] == 0:
			o.answer(nil, store.ErrNotFound)
		case len(o.Outbox) > 0 && (b.versions[i] == anyVersion || alive[o.Tenant] == o.SetVersion):
			o.answer(nil, store.ErrTaken)
		default:
			o.answer(nil, store.ErrStale)
		}
		refused[i] = true
	}
	if slices.Contains(refused, true) {
		s.holdings.drop(holdsOf(b.own(refused), b.gen)...)
	}
	if slices.Contains(left, true) {
		s.letGo(holdsOf(b.own(left), b.gen))
		b.tell(left)
	}
}

// tell has the engine look for what was stored waiting or parked for callers that
// wait no longer: they did not tell it.
func (b *batch) tell(left []bool) {
	for i, pub := range b.due.pub {
		if n := (store.Notice{Kind: store.NoticeParked, Tenant: b.due.tenant[i], Endpoint: b.due.endpoint[i]}); left[pub] && b.due.run[i] == parked {
			b.p.s.watchers.Tell(n)
		}
	}
	b.p.s.watchers.Tell(store.Notice{Kind: store.NoticeDue})
}

// whyNot finds the version of the endpoints of each tenant that lives, and
// whether another node took this one's run.
func (b *batch) whyNot(ctx context.Context, conn *pgxpool.Conn) (alive map[int64]int64, runTaken bool, err error) {
	if conn == nil {
		return nil, false, store.ErrUnavailable
	}
	alive = map[int64]int64{}
	rows, err := conn.Query(ctx, `SELECT id, set_version FROM tenants WHERE id = ANY ($1) AND deleted_at = 0`, b.tenants)
	if err == nil {
		err = eachRow(rows, func(r scanner) error {
			var id, version int64
			err := r.Scan(&id, &version)
			alive[id] = version
			return err
		})
	}
	if err != nil {
		return nil, false, err
	}
	err = conn.QueryRow(ctx, `SELECT NOT EXISTS (SELECT 1 FROM runs WHERE id = $1 AND taken_at = 0)`, b.run).Scan(&runTaken)
	return alive, runTaken, err
}

// failed prepares the publications for being tried again.
func (b *batch) failed(err error) error {
	for _, o := range b.pubs {
		o.accepted = nil
	}
	return fmt.Errorf("publish: %w", err)
}
