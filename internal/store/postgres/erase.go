package postgres

import (
	"context"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// ErasePayload implements [store.Eraser]. The rows are gone for every reader; of
// their bytes see DESIGN.md.
func (s *Store) ErasePayload(ctx context.Context, c store.Change, tenant int64, ref string) (e store.Erased, err error) {
	if err := s.serving(); err != nil {
		return e, err
	}
	if store.CheckText(ref) != nil {
		return e, store.ErrNotFound
	}
	event, err := s.EventByRef(ctx, tenant, ref)
	if err != nil {
		return e, err
	}
	err = s.change(ctx, c, func(tx *txn) error {
		e = store.Erased{Event: event}
		e.Event.Body = nil
		if err := tx.erasePayload(c, &e); err != nil {
			return err
		}
		return tx.writeHours()
	})
	if err != nil {
		return store.Erased{}, err
	}
	return e, nil
}

func (tx *txn) erasePayload(c store.Change, e *store.Erased) error {
	id := int64(e.Event.ID)
	var erased int64
	// Deliveries are locked before their event, as by everything else.
	open, err := tx.ids(`SELECT id FROM due WHERE `+dueOfEvent+` ORDER BY endpoint, id FOR UPDATE`, id, e.Event.Deliveries)
	if err != nil {
		return err
	}
	found, err := tx.row(`SELECT erased_at, size FROM events WHERE id = $1 FOR UPDATE`, []any{id}, &erased, &e.Bytes)
	switch {
	case err != nil:
		return err
	case !found:
		return store.ErrNotFound
	case erased != 0:
		e.Event.ErasedAt, e.Bytes = fromNanos(erased), 0
		return nil
	}
	e.Event.ErasedAt = c.At.UTC()
	if len(open) > 0 {
		rows, err := tx.settle(posthorn.Canceled, posthorn.ReasonPayloadErased, c.At, `SELECT id FROM due WHERE id = ANY ($1)`, open)
		if err != nil {
			return err
		}
		e.Canceled = len(rows)
	}
	if err := tx.eraseAnswers(&e.Event); err != nil {
		return err
	}
	if err := tx.exec(`UPDATE events SET body = NULL, erased_at = $2 WHERE id = $1`, id, nanos(c.At)); err != nil {
		return err
	}
	tx.keep(e.Event.Tenant, e.Event.ID, -int64(e.Bytes))
	if err := tx.writeKept(); err != nil {
		return err
	}
	tx.notice(store.Notice{Kind: store.NoticeErased, Tenant: e.Event.Tenant, Event: e.Event.ID})
	return tx.audit(c, e.Event.Tenant, e.Audit())
}

// dueOfEvent finds an event's open deliveries; late ones stand apart from it.
const dueOfEvent = `(id > $1 AND id <= $1 + $2 OR late AND event = $1)`

// eraseAnswers takes what receivers answered out of an event's finished
// deliveries; there are no others any more.
func (tx *txn) eraseAnswers(e *posthorn.Event) error {
	var ids []int64
	var logs [][]byte
	err := tx.rows(`SELECT id, log FROM deliveries WHERE (id > $1 AND id <= $1 + $2) AND log IS NOT NULL
		UNION ALL SELECT id, log FROM deliveries WHERE endpoint IN (SELECT id FROM endpoints WHERE tenant = $3) AND late AND event = $1 AND id > $1 + $2 AND log IS NOT NULL`,
		[]any{int64(e.ID), e.Deliveries, e.Tenant}, func(r scanner) error {
			var id int64
			var log []byte
			if err := r.Scan(&id, &log); err != nil {
				return err
			}
			ids, logs = append(ids, id), append(logs, store.EraseAnswers(log))
			return nil
		})
	if err != nil || len(ids) == 0 {
		return err
	}
	return tx.exec(`UPDATE deliveries d SET log = u.log FROM unnest($1::bigint[], $2::bytea[]) u (id, log) WHERE d.id = u.id`, ids, logs)
}

const deletionColumns = `tenant, name, deleted_at, completed_at, endpoints, secrets, tokens, events, payload_bytes, deliveries`

func scanDeletion(r scanner) (d store.Deletion, err error) {
	var deleted, completed int64
	err = r.Scan(&d.Tenant, &d.Name, &deleted, &completed, &d.Endpoints, &d.Secrets, &d.Tokens, &d.Events, &d.PayloadBytes, &d.Deliveries)
	d.DeletedAt, d.CompletedAt = fromNanos(deleted), fromNanos(completed)
	return d, err
}

// Deletions implements [store.Eraser].
func (s *Store) Deletions(ctx context.Context, before int64, limit int) ([]store.Deletion, error) {
	return all(ctx, s, s.other, scanDeletion, `SELECT `+deletionColumns+` FROM deletions WHERE tenant < $1 ORDER BY tenant DESC LIMIT $2`, below(before), limit)
}

// noteDeletion begins the account of what a tenant's deletion erases.
func (tx *txn) noteDeletion(tenant int64, name string, at time.Time) error {
	return tx.exec(`INSERT INTO deletions (tenant, name, deleted_at, endpoints, secrets, tokens) VALUES ($1, $2, $3,
		(SELECT count(*) FROM endpoints WHERE tenant = $1),
		(SELECT count(*) FROM endpoint_secrets s JOIN endpoints e ON e.id = s.endpoint WHERE e.tenant = $1),
		(SELECT count(*) FROM tokens WHERE tenant = $1))`, tenant, name, nanos(at))
}

// completeDeletions ends the accounts of tenants of whom nothing is left.
func (sw *sweep) completeDeletions() error {
	var done []store.Deletion
	err := sw.tx.rows(`UPDATE deletions d SET completed_at = $1 WHERE completed_at = 0
		AND NOT EXISTS (SELECT 1 FROM tenants t WHERE t.id = d.tenant) AND NOT EXISTS (SELECT 1 FROM endpoints e WHERE e.tenant = d.tenant)
		RETURNING `+deletionColumns, []any{nanos(sw.now)}, func(r scanner) error {
		d, err := scanDeletion(r)
		done = append(done, d)
		return err
	})
	if err != nil {
		return err
	}
	for i := range done {
		d := &done[i]
		if err := sw.tx.audit(store.Change{Actor: "posthorn", At: sw.now}, d.Tenant, d.Audit()); err != nil {
			return err
		}
	}
	return nil
}
