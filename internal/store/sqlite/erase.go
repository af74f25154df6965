package sqlite

import (
	"context"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// ErasePayload implements [store.Eraser].
func (s *Store) ErasePayload(ctx context.Context, c store.Change, tenant int64, ref string) (e store.Erased, err error) {
	if err := s.serving(); err != nil {
		return e, err
	}
	event, err := s.EventByRef(ctx, tenant, ref)
	if err != nil {
		return e, err
	}
	err = s.change(ctx, c, func(tx *txn) error {
		e = store.Erased{Event: event}
		e.Event.Body = nil
		return tx.erasePayload(c, &e)
	})
	if err != nil {
		return store.Erased{}, err
	}
	if s.writer.emptying.of(e.Event.ErasedAt) {
		e.Event.Erasing = !s.checkpointer.emptied(ctx, s.writer.emptying.turn(), s.patience)
	}
	return e, nil
}

func (tx *txn) erasePayload(c store.Change, e *store.Erased) error {
	var erased int64
	found, err := tx.row(`SELECT erased_at, size FROM events WHERE id = ?`, []any{int64(e.Event.ID)}, &erased, &e.Bytes)
	switch {
	case err != nil:
		return err
	case !found:
		return refuse(store.ErrNotFound)
	case erased != 0:
		e.Event.ErasedAt, e.Bytes = fromNanos(erased), 0
		return nil
	}
	e.Event.ErasedAt = c.At.UTC()
	if e.Canceled, err = tx.silence(&e.Event, c.At); err != nil {
		return err
	}
	if err := tx.dropPayload(e.Event.ID, c.At); err != nil {
		return err
	}
	if err := tx.markErasing(c.At); err != nil {
		return err
	}
	tx.keep(e.Event.Tenant, e.Event.ID, -int64(e.Bytes))
	tx.notice(store.Notice{Kind: store.NoticeErased, Tenant: e.Event.Tenant, Event: e.Event.ID})
	return tx.audit(c, e.Event.Tenant, e.Audit())
}

// dropPayload erases an event's body, and says so in the event.
func (tx *txn) dropPayload(event posthorn.ID, at time.Time) error {
	if err := tx.blankPayload(event); err != nil {
		return err
	}
	return tx.exec(`UPDATE events SET erased_at = ? WHERE id = ?`, nanos(at), int64(event))
}

// blankPayload overwrites a body where it is. Deleting its row instead would
// leave copies: SQLite moves rows between pages when a page runs empty and
// overwrites only what is deleted, not where a moved row was. Rows are deleted
// by freePayloads, where all around them is blank.
func (tx *txn) blankPayload(event posthorn.ID) error {
	return tx.exec(`UPDATE payloads SET body = zeroblob(length(body)) WHERE event = ? AND substr(body, 1, 1) <> x'00'`, int64(event))
}

// blank reports whether a body was erased. One that was not begins with a brace.
func blank(body []byte) bool { return len(body) == 0 || body[0] == 0 }

// silence cancels what is open of an event and erases what receivers answered.
func (tx *txn) silence(e *posthorn.Event, at time.Time) (canceled int, err error) {
	type row struct {
		openRow
		log []byte
	}
	var all []row
	// Late ones stand apart from their event.
	err = tx.rows(`SELECT id, tenant, endpoint, place, log FROM deliveries NOT INDEXED WHERE id > ?1 AND id <= ?1 + ?2
		UNION ALL SELECT id, tenant, endpoint, place, log FROM deliveries INDEXED BY deliveries_late WHERE late = 1 AND tenant = ?3 AND event = ?1`,
		[]any{int64(e.ID), e.Deliveries, e.Tenant}, func(r scanner) error {
			var d row
			err := r.Scan((*int64)(&d.id), &d.tenant, &d.endpoint, &d.place, &d.log)
			all = append(all, d)
			return err
		})
	if err != nil {
		return 0, err
	}
	for _, d := range all {
		if d.place != nowhere {
			canceled++
			if _, err := tx.settle(d.openRow, posthorn.Canceled, posthorn.ReasonPayloadErased, at); err != nil {
				return 0, err
			}
		}
		if len(d.log) == 0 {
			continue
		}
		if err := tx.exec(`UPDATE deliveries SET log = ? WHERE id = ?`, store.EraseAnswers(d.log), int64(d.id)); err != nil {
			return 0, err
		}
	}
	return canceled, nil
}

// Deletions implements [store.Eraser].
func (s *Store) Deletions(ctx context.Context, before int64, limit int) ([]store.Deletion, error) {
	return all(ctx, s.readers, scanDeletion, `SELECT `+deletionColumns+` FROM deletions WHERE tenant < ? ORDER BY tenant DESC LIMIT ?`, below(before), limit)
}

const deletionColumns = `tenant, name, deleted_at, completed_at, endpoints, secrets, tokens, events, payload_bytes, deliveries`

func scanDeletion(r scanner) (d store.Deletion, err error) {
	var deleted, completed int64
	err = r.Scan(&d.Tenant, &d.Name, &deleted, &completed, &d.Endpoints, &d.Secrets, &d.Tokens, &d.Events, &d.PayloadBytes, &d.Deliveries)
	d.DeletedAt, d.CompletedAt = fromNanos(deleted), fromNanos(completed)
	return d, err
}

// noteDeletion begins the account of what a tenant's deletion erases.
func (tx *txn) noteDeletion(tenant int64, name string, at time.Time) error {
	return tx.exec(`INSERT INTO deletions (tenant, name, deleted_at, endpoints, secrets, tokens) VALUES (?1, ?2, ?3,
		(SELECT count(*) FROM endpoints WHERE tenant = ?1),
		(SELECT count(*) FROM endpoint_secrets s JOIN endpoints e ON e.id = s.endpoint WHERE e.tenant = ?1),
		(SELECT count(*) FROM tokens WHERE tenant = ?1))`, tenant, name, nanos(at))
}

// completeDeletions ends the accounts of tenants of whom nothing is left. The
// log is emptied before, so that a completed one's payloads are in neither file.
func (s *Store) completeDeletions(ctx context.Context, now time.Time) error {
	done, err := all(ctx, s.readers, scanDeletion, `SELECT `+deletionColumns+` FROM deletions d WHERE completed_at = 0
		AND NOT EXISTS (SELECT 1 FROM tenants t WHERE t.id = d.tenant) AND NOT EXISTS (SELECT 1 FROM endpoints e WHERE e.tenant = d.tenant)`)
	if err != nil || len(done) == 0 {
		return err
	}
	if !s.emptyLog(ctx, 0) {
		return ctx.Err() // the next sweep tries again
	}
	return s.writer.submit(&op{kind: opSweep, ctx: ctx, apply: func(tx *txn) error {
		for i := range done {
			d := &done[i]
			if err := tx.exec(`UPDATE deletions SET completed_at = ? WHERE tenant = ?`, nanos(now), d.Tenant); err != nil {
				return err
			}
			if err := tx.audit(store.Change{Actor: "posthorn", At: now}, d.Tenant, d.Audit()); err != nil {
				return err
			}
		}
		return nil
	}})
}
