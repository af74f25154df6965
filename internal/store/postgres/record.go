package postgres

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// result is a Result on its way through the recorder.
type result struct {
	store.Result
	done func(store.Recorded, error)
	rec  store.Recorded
}

// Record implements [store.Queue].
func (s *Store) Record(r store.Result, done func(store.Recorded, error)) {
	if err := s.serving(); err != nil {
		done(store.Recorded{}, err)
		return
	}
	if err := s.recorder.queue.add(&result{Result: r, done: done}); err != nil {
		done(store.Recorded{}, err)
	}
}

// recorder writes results: one goroutine, one transaction of two statements per
// group.
type recorder struct {
	s       *Store
	queue   *queue[result]
	running sync.WaitGroup
	moves   store.Moves
	mark    mark // of the last transaction
}

func newRecorder(s *Store) *recorder {
	return &recorder{s: s, mark: mark{key: randomKey()}, queue: newQueue(true, func(r *result) (int64, int, int) { return r.Tenant, 1, 0 })}
}

func (w *recorder) run() {
	for {
		group := w.queue.take()
		if len(group) == 0 {
			return
		}
		w.moves.Begin()
		done := w.write(group)
		w.queue.written()
		w.moves.End(done || w.queue.empty())
	}
}

// write commits a group and answers its callers; when it fails for anything but
// the database's absence, it is repeated one result at a time. done tells that the
// database answered.
func (w *recorder) write(group []*result) (done bool) {
	err := w.try(group)
	for i := 0; isCode(err, codeDeadlock, codeSerialize, codeUnique) && i < retries; i++ {
		err = w.try(group)
	}
	switch {
	case errors.Is(err, errBeside): // they are answered there
		return false
	case err != nil && len(group) > 1 && !errors.Is(classify(err), store.ErrUnavailable):
		for _, r := range group {
			done = w.write([]*result{r}) || done
		}
		return done
	}
	answerAll(group, err)
	return err == nil
}

// answerAll tells the callers of a group what became of it.
func answerAll(group []*result, err error) {
	for _, r := range group {
		if err != nil {
			r.done(store.Recorded{}, classify(err))
			continue
		}
		r.done(r.rec, nil)
	}
}

func (w *recorder) try(group []*result) error {
	ctx, cancel := context.WithTimeout(context.Background(), w.s.o.Deadlines.Write)
	defer cancel()
	conn, err := w.s.hot.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	w.mark.value++
	tx := w.s.newTxn(ctx, conn.Conn())
	tx.mark = w.mark
	set := &resultSet{tx: tx, log: w.s.log, rows: map[posthorn.ID]*deliveryRow{}, health: map[int64]*healthRow{}}
	if err = set.read(group); err == nil {
		err = set.apply(group)
	}
	if err == nil {
		err = tx.announce(w.s)
	}
	if err != nil {
		tx.rollback()
		return err
	}
	err = set.write(w.s)
	switch {
	case err == nil:
		set.committed(w.s, group)
		return nil
	case !tx.c.IsClosed():
		tx.rollback()
		return err
	case tx.mark.key == 0:
		return err // nothing to prove
	}
	w.findOut(set, group, err)
	return errBeside
}

// findOut finds out beside what became of a group without an answer. Until then its
// results are not recorded and not to be recorded again.
func (w *recorder) findOut(set *resultSet, group []*result, why error) {
	s, tx := w.s, set.tx
	s.log.Warn("results were not answered by the database; finding out what became of them", "results", len(group), "error", why)
	broken := partyOf(tx.c)
	w.mark = mark{key: randomKey()} // what follows must not overwrite the proof
	s.beside(func() {
		committed, err := s.settle(broken, func(ctx context.Context, c *pgxpool.Conn) (f fate, err error) {
			if f, err = tx.mark.fate(ctx, c); err == nil && f == fateCommitted {
				set.parked, err = collect(c.Query(ctx, stillInLine, set.ids()))
			}
			return f, err
		})
		switch {
		case err != nil:
		case committed:
			set.committed(s, group)
		default:
			err = why
		}
		answerAll(group, err)
	})
}

// stillInLine is what of the results waits in the line of an ordered endpoint.
const stillInLine = `SELECT d.id FROM due d JOIN events e ON e.id = d.event
	WHERE d.id = ANY ($1) AND EXISTS (SELECT 1 FROM lanes l WHERE l.endpoint = d.endpoint AND l.ordered) AND NOT ` + aside

func (set *resultSet) ids() []int64 {
	ids := make([]int64, 0, len(set.rows))
	for id := range set.rows {
		ids = append(ids, int64(id))
	}
	return ids
}

// committed tells what a group of results changed.
func (set *resultSet) committed(s *Store, group []*result) {
	s.committed(set.tx)
	if set.lowest != 0 {
		s.floor.lower(set.lowest)
	}
	for _, r := range group {
		r.rec.Parked = !r.rec.Lost && slices.Contains(set.parked, int64(r.ID))
		if r.Gen != 0 || !r.rec.Lost { // one that is lost need not be of the hold there is
			s.holdings.drop(store.Hold{ID: r.ID, Gen: r.Gen})
		}
	}
}

// resultSet is a group of results in a transaction, with the rows that they
// meet.
type resultSet struct {
	tx     *txn
	log    *slog.Logger
	rows   map[posthorn.ID]*deliveryRow
	health map[int64]*healthRow
	lowest int64   // the earliest time of what waits now
	parked []int64 // of what waits, what stands in a line
}

// deliveryRow is a delivery as the recorder needs it.
type deliveryRow struct {
	tenant, endpoint int64
	run              int64
	replay           int64 // whose counts it changes; 0 for none
	settled          bool  // it stands in the history
	dirty            bool
	reason           posthorn.Reason // of one in the history
	counted          int64           // see [store.Hours.Move]
	erased           bool            // it is settled, and its event's payload is gone
	progress         posthorn.Progress
	log              []byte
}

// selectResults locks the rows of results with their endpoints' health, so that
// what is read holds until the commit. All lock in the same order.
const selectResults = `SELECT d.id, d.tenant, d.endpoint, d.run, d.next_at, d.tries, d.attempts, d.waits, d.round, d.extra, d.before, d.manual, d.replay_id, d.counted, d.log,
	` + healthColumns + `
	FROM due d JOIN endpoint_health h ON h.endpoint = d.endpoint WHERE d.id = ANY ($1) ORDER BY d.endpoint, d.id FOR UPDATE OF d, h`

// read begins the transaction and reads the rows that the results are for.
func (set *resultSet) read(group []*result) error {
	ids := make([]int64, len(group))
	for i, r := range group {
		ids[i] = int64(r.ID)
	}
	tx := set.tx
	var b pgx.Batch
	b.Queue("BEGIN")
	b.Queue(selectResults, ids)
	answers := tx.c.SendBatch(tx.ctx, &b)
	_, err := answers.Exec()
	if err == nil {
		var rows pgx.Rows
		if rows, err = answers.Query(); err == nil {
			err = eachRow(rows, set.scanDue)
		}
	}
	if err = errors.Join(err, answers.Close()); err != nil {
		return err
	}
	if len(set.rows) < len(ids) {
		return set.readSettled(ids)
	}
	return nil
}

func (set *resultSet) scanDue(r scanner) error {
	var id posthorn.ID
	d := &deliveryRow{}
	h := &healthRow{}
	p := &d.progress
	var next int64
	err := r.Scan(append([]any{(*int64)(&id), &d.tenant, &d.endpoint, &d.run, &next, &p.Tries, &p.Attempts, &p.Waits, &p.Round, &p.Extra, &p.Before, &p.Manual, &d.replay, &d.counted, &d.log},
		h.dest()...)...)
	p.NextAt = fromNanos(next)
	set.rows[id] = d
	if _, ok := set.health[d.endpoint]; !ok {
		h.load()
		set.health[d.endpoint] = h
	}
	return err
}

// readSettled reads what is not open: results come late for what was canceled
// meanwhile, and twice.
func (set *resultSet) readSettled(ids []int64) error {
	var missing []int64
	for _, id := range ids {
		if set.rows[posthorn.ID(id)] == nil {
			missing = append(missing, id)
		}
	}
	err := set.tx.rows(`SELECT id, tenant, endpoint, state, tries, attempts, waits, round, replay_id, reason, counted, log,
		NOT EXISTS (SELECT 1 FROM events e WHERE e.id = deliveries.event AND e.body IS NOT NULL)
		FROM deliveries WHERE id = ANY ($1) ORDER BY id FOR UPDATE`, []any{missing}, func(r scanner) error {
		var id posthorn.ID
		d := &deliveryRow{settled: true}
		p := &d.progress
		err := r.Scan((*int64)(&id), &d.tenant, &d.endpoint, &p.State, &p.Tries, &p.Attempts, &p.Waits, &p.Round, &d.replay, &d.reason, &d.counted, &d.log, &d.erased)
		set.rows[id] = d
		return err
	})
	return err
}

// apply lets each result do to its row what the policy says.
func (set *resultSet) apply(group []*result) error {
	for _, r := range group {
		r.rec = store.Recorded{}
		d := set.rows[r.ID]
		if d == nil || d.progress.Tries != r.Tries || d.endpoint != r.Endpoint || d.run > 0 && !set.tx.holdings.hasFor(d.run, store.Hold{ID: r.ID, Gen: r.Gen}) {
			r.rec.Lost = true
			continue
		}
		if err := set.record(r, d); err != nil {
			return err
		}
	}
	return nil
}

func (set *resultSet) record(r *result, d *deliveryRow) error {
	// Its payload may have been erased while this attempt was under way.
	next, log, ok := r.Apply(d.progress, d.log, d.erased, set.log)
	if !ok {
		r.rec.Lost = true
		return nil
	}
	before := d.progress
	set.tx.replays.Count(d.replay, before, next)
	d.reason = store.ReasonAfter(before, next, d.reason, posthorn.ReasonNone)
	d.progress, d.log, d.dirty, d.run = next, log, true, waiting
	r.rec.Progress = next
	d.counted = set.tx.hours.Count(&r.Result, before, next, d.counted)
	return set.observe(r, d)
}

// observe brings the endpoint's health up to date and pauses it when that says
// so.
func (set *resultSet) observe(r *result, d *deliveryRow) error {
	h, err := set.healthOf(d.endpoint)
	if err != nil {
		return err
	}
	if r.Kind == posthorn.EventTest {
		r.rec.Health = h.Health
		return nil
	}
	before := h.Health
	now, reason := before.ObserveKind(r.Kind, &r.Attempt, r.EndedAt)
	if now != before {
		h.Health, h.dirty = now, true
	}
	r.rec.Health = now
	r.rec.Recovered = r.Attempt.Succeeded() && !before.FailingSince.IsZero()
	if reason != "" {
		paused, err := set.tx.pause(d.tenant, d.endpoint, reason, r.EndedAt)
		if err != nil {
			return err
		}
		if paused {
			r.rec.Paused = reason
		}
	}
	if t, ok := store.TurnOf(before, now, r.rec.Paused, r.Attempt.Succeeded()); ok {
		return set.tx.note(t, d.tenant, d.endpoint, r.EndedAt)
	}
	return nil
}

// healthOf returns the health as the transaction left it. Of an endpoint that is
// only met by results for what is settled, it was not read yet.
func (set *resultSet) healthOf(endpoint int64) (*healthRow, error) {
	if h, ok := set.health[endpoint]; ok {
		return h, nil
	}
	h, err := set.tx.healthOf(endpoint)
	if err == nil {
		set.health[endpoint] = h
	}
	return h, err
}

// pause pauses an active endpoint on Posthorn's own account.
func (tx *txn) pause(tenant, endpoint int64, reason posthorn.PausedReason, at time.Time) (bool, error) {
	var ref string
	found, err := tx.row(`UPDATE endpoints SET status = 'paused', paused_reason = $2, paused_at = $3, updated_at = $3, version = version + 1
		WHERE id = $1 AND status = 'active' AND deleted_at = 0 RETURNING ref`, []any{endpoint, string(reason), nanos(at)}, &ref)
	if err != nil || !found {
		return false, err
	}
	if err := tx.endpointChanged(tenant, endpoint, false); err != nil {
		return false, err
	}
	return true, tx.audit(store.Change{Actor: "posthorn", At: at}, tenant, store.AuditPause(ref, reason))
}
