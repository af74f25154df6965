package sqlite

import (
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// Record implements [store.Queue].
func (s *Store) Record(r store.Result, done func(store.Recorded, error)) {
	if err := s.serving(); err != nil {
		done(store.Recorded{}, err)
		return
	}
	var rec store.Recorded
	o := &op{
		kind: opResult, tenant: r.Tenant, rows: 1,
		apply: func(tx *txn) (err error) {
			rec, err = tx.record(&r)
			return err
		},
		done: func(err error) {
			if err != nil {
				rec = store.Recorded{}
			}
			done(rec, err)
		},
	}
	if err := s.writer.queue.add(o); err != nil {
		done(store.Recorded{}, err)
	}
}

// deliveryRow is a delivery as the writer needs it.
type deliveryRow struct {
	id               posthorn.ID
	tenant, endpoint int64
	place            place
	replay           int64 // whose counts it changes; 0 for none
	reason           posthorn.Reason
	counted          int64 // see [store.Hours.Move]
	erased           bool  // it is finished, and its event's payload is gone
	progress         posthorn.Progress
	log              []byte
}

func (tx *txn) delivery(id posthorn.ID) (d deliveryRow, found bool, err error) {
	d.id = id
	var next int64
	p := &d.progress
	found, err = tx.row(`SELECT tenant, endpoint, state, place, next_at, tries, attempts, waits, round, extra, before, manual, replay_id, reason, counted, log,
			place = 0 AND NOT EXISTS (SELECT 1 FROM events e WHERE e.id = deliveries.event AND e.erased_at = 0)
		FROM deliveries WHERE id = ?`, []any{int64(id)},
		&d.tenant, &d.endpoint, &p.State, &d.place, &next, &p.Tries, &p.Attempts, &p.Waits, &p.Round, &p.Extra, &p.Before, &p.Manual, &d.replay, &d.reason, &d.counted, &d.log, &d.erased)
	p.NextAt = nextAt(d.place, next)
	return d, found, err
}

// nextAt is the time that next_at holds.
func nextAt(p place, next int64) time.Time {
	switch p {
	case nowhere:
		return time.Time{}
	case owned:
		next -= ownedOffset
	}
	return fromNanos(next)
}

func (tx *txn) record(r *store.Result) (store.Recorded, error) {
	if rec, done, err := tx.recordFirst(r); done || err != nil {
		return rec, err
	}
	d, found, err := tx.delivery(r.ID)
	if err != nil {
		return store.Recorded{}, err
	}
	if !found || d.progress.Tries != r.Tries || d.endpoint != r.Endpoint {
		return store.Recorded{Lost: true}, nil
	}
	// Its payload may have been erased while this attempt was under way.
	next, log, ok := r.Apply(d.progress, d.log, d.erased, tx.w.log)
	if !ok {
		return store.Recorded{Lost: true}, nil
	}
	d.log = log
	stands := false
	if !next.State.Final() {
		if stands, err = tx.stands(&d, r.Kind); err != nil {
			return store.Recorded{}, err
		}
	}
	d.counted = tx.hours.Count(r, d.progress, next, d.counted)
	if err := tx.saveResult(&d, next, stands); err != nil {
		return store.Recorded{}, err
	}
	rec, err := tx.settled(r, &d, next)
	rec.Parked = stands
	return rec, err
}

// settled has the endpoint's health follow a result that was written and counted.
func (tx *txn) settled(r *store.Result, d *deliveryRow, next posthorn.Progress) (store.Recorded, error) {
	rec := store.Recorded{Progress: next}
	if r.Kind == posthorn.EventTest {
		h, err := tx.healthOf(d.endpoint)
		rec.Health = h.Health
		return rec, err
	}
	return rec, tx.observe(r, d, &rec)
}

// recordFirst records what nearly every result is, the success of a delivery's
// first attempt, without reading the row: the update holds only if the row is
// as it was published. Else nothing is done.
func (tx *txn) recordFirst(r *store.Result) (rec store.Recorded, done bool, err error) {
	if r.Tries != 0 || r.Attempt.Number != 1 || r.Attempt.Manual || !r.Attempt.Succeeded() {
		return rec, false, nil
	}
	d := deliveryRow{id: r.ID, tenant: r.Tenant, endpoint: r.Endpoint, place: owned}
	next, err := r.Policy.Step(d.progress, posthorn.Input{Move: posthorn.Attempted, Outcome: r.Attempt.Class, Now: r.EndedAt, Random: r.Random})
	if err != nil || next != (posthorn.Progress{State: posthorn.Succeeded, Tries: 1, Attempts: 1}) {
		return rec, false, nil
	}
	if d.log, err = store.AppendAttempt(nil, &r.Attempt); err != nil {
		return rec, false, err // never, as nothing was there before
	}
	n, err := tx.execCount(`UPDATE deliveries SET state = ?, place = 0, next_at = 0, tries = 1, attempts = 1, reason = '', counted = ?, log = ?
		WHERE id = ? AND tenant = ? AND endpoint = ? AND state = 0 AND place = 1 AND tries = 0 AND attempts = 0 AND waits = 0
		AND round = 0 AND extra = 0 AND before = 0 AND manual = 0 AND replay_id = 0 AND log IS NULL`,
		int64(next.State), r.CountedIn(), d.log, int64(d.id), d.tenant, d.endpoint)
	if err != nil || n == 0 {
		return rec, false, err
	}
	tx.move(d.tenant, d.endpoint, owned, nowhere)
	tx.hours.Count(r, d.progress, next, 0)
	rec, err = tx.settled(r, &d, next)
	return rec, true, err
}

// saveResult writes the delivery after an attempt: it waits, in its endpoint's
// line if it stands there, or is finished.
func (tx *txn) saveResult(d *deliveryRow, next posthorn.Progress, stands bool) error {
	to, at := nowhere, int64(0)
	switch {
	case next.State.Final():
	case stands:
		to, at = parked, nanos(next.NextAt)
	default:
		to, at = waiting, nanos(next.NextAt)
	}
	d.reason = store.ReasonAfter(d.progress, next, d.reason, posthorn.ReasonNone)
	tx.replays.Count(d.replay, d.progress, next)
	tx.move(d.tenant, d.endpoint, d.place, to)
	return tx.exec(`UPDATE deliveries SET state = ?, place = ?, next_at = ?, tries = ?, attempts = ?, waits = ?, extra = ?, before = ?, manual = ?, reason = ?, counted = ?, log = ?
		WHERE id = ?`,
		int64(next.State), int64(to), at, next.Tries, next.Attempts, next.Waits, next.Extra, int64(next.Before), next.Manual, string(d.reason), d.counted, d.log, int64(d.id))
}

// observe brings the endpoint's health up to date and pauses it when that
// says so.
func (tx *txn) observe(r *store.Result, d *deliveryRow, rec *store.Recorded) error {
	h, err := tx.healthOf(d.endpoint)
	if err != nil {
		return err
	}
	before := h.Health
	now, reason := before.ObserveKind(r.Kind, &r.Attempt, r.EndedAt)
	h.set(now)
	rec.Health = now
	rec.Recovered = r.Attempt.Succeeded() && !before.FailingSince.IsZero()
	if reason != "" {
		paused, err := tx.pause(d.tenant, d.endpoint, reason, r.EndedAt)
		if err != nil {
			return err
		}
		if paused {
			rec.Paused = reason
		}
	}
	if t, ok := store.TurnOf(before, now, rec.Paused, r.Attempt.Succeeded()); ok {
		return tx.note(t, d.tenant, d.endpoint, r.EndedAt)
	}
	return nil
}

// pause pauses an active endpoint on Posthorn's own account.
func (tx *txn) pause(tenant, endpoint int64, reason posthorn.PausedReason, at time.Time) (bool, error) {
	n, err := tx.execCount(`UPDATE endpoints SET status = 'paused', paused_reason = ?, paused_at = ?, updated_at = ?, version = version + 1
		WHERE id = ? AND status = 'active' AND deleted_at = 0`, string(reason), nanos(at), nanos(at), endpoint)
	if err != nil || n == 0 {
		return false, err
	}
	if err := tx.endpointChanged(tenant, endpoint, false); err != nil {
		return false, err
	}
	var ref string
	if _, err := tx.row(`SELECT ref FROM endpoints WHERE id = ?`, []any{endpoint}, &ref); err != nil {
		return false, err
	}
	return true, tx.audit(store.Change{Actor: "posthorn", At: at}, tenant, store.AuditPause(ref, reason))
}
