package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/posthorn/posthorn/internal/store"
)

var _ store.Outbox = (*Store)(nil)

const outboxColumns = `o.id, o.tenant, coalesce((SELECT t.name FROM tenants t WHERE t.id = o.tenant AND t.deleted_at = 0), ''),
	o.key, o.type, o.at, o.deliver_at, o.refused_at, o.reason`

func outboxRow(o *store.OutboxRow, more ...any) func(scanner) error {
	return func(r scanner) error {
		var at, deliver, refused int64
		err := r.Scan(append([]any{&o.ID, &o.Tenant, &o.TenantName, &o.Key, &o.Type, &at, &deliver, &refused, &o.Reason}, more...)...)
		o.At, o.DeliverAt, o.RefusedAt = fromNanos(at), fromNanos(deliver), fromNanos(refused)
		return err
	}
}

func scanOutbox(r scanner) (o store.OutboxRow, err error) { return o, outboxRow(&o)(r) }

func scanOutboxData(r scanner) (o store.OutboxRow, err error) {
	var data string
	err = outboxRow(&o, &data)(r)
	o.Data = []byte(data)
	return o, err
}

// outboxBytes bounds what one look at the outbox reads, but for its first row.
const outboxBytes = 4 << 20

// outboxTenants bounds the tenants of one look. They are found by hopping over the
// index from one to the next.
const outboxTenants = 256

// OutboxWaiting implements [store.Outbox].
func (s *Store) OutboxWaiting(ctx context.Context, but []int64, limit int) ([]store.OutboxRow, error) {
	if err := s.serving(); err != nil {
		return nil, err
	}
	if !s.clocks.trusted() {
		return nil, nil // other nodes take them
	}
	if but == nil {
		but = []int64{}
	}
	return all(ctx, s, s.other, scanOutboxData, `WITH RECURSIVE t (tenant) AS (
			(SELECT tenant FROM outbox WHERE refused_at = 0 AND tenant <> ALL ($1) ORDER BY tenant LIMIT 1)
			UNION ALL
			SELECT (SELECT o.tenant FROM outbox o WHERE o.refused_at = 0 AND o.tenant > t.tenant ORDER BY o.tenant LIMIT 1) FROM t WHERE t.tenant IS NOT NULL
		), c AS MATERIALIZED (
			SELECT r.id, r.tenant, r.size, r.place FROM (SELECT tenant FROM t WHERE tenant IS NOT NULL AND tenant <> ALL ($1) LIMIT $4) t
				CROSS JOIN LATERAL (SELECT o.id, o.tenant, octet_length(o.data) AS size, row_number() OVER (ORDER BY o.id) AS place
					FROM (SELECT id, tenant, data FROM outbox WHERE refused_at = 0 AND tenant = t.tenant ORDER BY id LIMIT $2) o) r
			ORDER BY r.place, r.id LIMIT $2
		), s AS (SELECT id, sum(size) OVER (ORDER BY place, id) - size AS before FROM c)
		SELECT `+outboxColumns+`, o.data FROM s JOIN outbox o USING (id) WHERE s.before < $3 AND o.refused_at = 0
		ORDER BY o.tenant, o.id FOR NO KEY UPDATE OF o SKIP LOCKED`, but, limit, outboxBytes, outboxTenants)
}

// OutboxRefuse implements [store.Outbox].
func (s *Store) OutboxRefuse(ctx context.Context, at time.Time, reasons map[int64]string) error {
	var ids []int64
	var texts []string
	for id, reason := range reasons {
		ids, texts = append(ids, id), append(texts, reason)
	}
	_, err := s.other.Exec(ctx, `UPDATE outbox o SET refused_at = $1, reason = u.reason
		FROM unnest($2::bigint[], $3::text[]) u (id, reason) WHERE o.id = u.id AND o.refused_at = 0`, nanos(at), ids, texts)
	return s.readError(ctx, err)
}

// OutboxChanged implements [store.Outbox].
func (s *Store) OutboxChanged() <-chan struct{} { return s.notices.outbox }

// OutboxAhead implements [store.Outbox].
func (s *Store) OutboxAhead(ctx context.Context, d time.Duration) error {
	_, err := s.other.Exec(ctx, `UPDATE meta SET value = $1 WHERE key = 'deliver_ahead' AND value <> $1`, int64(d))
	return s.readError(ctx, err)
}

// OutboxRows implements [store.Outbox].
func (s *Store) OutboxRows(ctx context.Context, refused bool, before int64, limit int) ([]store.OutboxRow, error) {
	state := `= 0`
	if refused {
		state = `<> 0`
	}
	return all(ctx, s, s.other, scanOutbox, `SELECT `+outboxColumns+` FROM outbox o
		WHERE o.refused_at `+state+` AND o.id < $1 ORDER BY o.id DESC LIMIT $2`, below(before), limit)
}

// OutboxByID implements [store.Outbox].
func (s *Store) OutboxByID(ctx context.Context, id int64) (store.OutboxRow, error) {
	return one(ctx, s, scanOutbox, `SELECT `+outboxColumns+` FROM outbox o WHERE o.id = $1`, id)
}

// OutboxRetry implements [store.Outbox].
func (s *Store) OutboxRetry(ctx context.Context, c store.Change, id int64) error {
	return s.change(ctx, c, func(tx *txn) error {
		o, err := tx.outbox(id)
		if err != nil || o.RefusedAt.IsZero() {
			return err
		}
		if err := tx.exec(`UPDATE outbox SET refused_at = 0, reason = '' WHERE id = $1`, id); err != nil {
			return err
		}
		if err := tx.exec(`SELECT pg_notify(` + outboxChannel + `, '') WHERE pg_notification_queue_usage() < 0.5`); err != nil {
			return err
		}
		return tx.audit(c, o.Tenant, store.Audit{Action: "outbox.retry", Subject: fmt.Sprint(id), Before: auditOutbox(&o, "refused"), After: auditOutbox(&o, "waiting")})
	})
}

// OutboxDrop implements [store.Outbox].
func (s *Store) OutboxDrop(ctx context.Context, c store.Change, id int64) error {
	return s.change(ctx, c, func(tx *txn) error {
		o, err := tx.outbox(id)
		if err != nil {
			return err
		}
		if o.RefusedAt.IsZero() {
			return store.ErrExists
		}
		if err := tx.exec(`DELETE FROM outbox WHERE id = $1`, id); err != nil {
			return err
		}
		return tx.audit(c, o.Tenant, store.Audit{Action: "outbox.drop", Subject: fmt.Sprint(id), Before: auditOutbox(&o, "refused")})
	})
}

// auditOutbox is what the audit shows of a row; never its data.
func auditOutbox(o *store.OutboxRow, state string) any {
	return struct {
		State   string `json:"state"`
		Type    string `json:"type"`
		EventID string `json:"event_id,omitempty"`
	}{state, o.Type, o.Key}
}

func (tx *txn) outbox(id int64) (o store.OutboxRow, err error) {
	rows, err := tx.c.Query(tx.ctx, `SELECT `+outboxColumns+` FROM outbox o WHERE o.id = $1 FOR UPDATE`, id)
	if err != nil {
		return o, err
	}
	if err := eachRow(rows, outboxRow(&o)); err != nil {
		return o, err
	}
	if o.ID == 0 {
		return o, store.ErrNotFound
	}
	return o, nil
}

// OutboxCounts implements [store.Outbox].
func (s *Store) OutboxCounts(ctx context.Context, limit int) (waiting, refused int, oldest time.Time, err error) {
	var at int64
	err = s.other.QueryRow(ctx, `SELECT (SELECT count(*) FROM (SELECT 1 FROM outbox WHERE refused_at = 0 LIMIT $1) w),
		(SELECT count(*) FROM (SELECT 1 FROM outbox WHERE refused_at <> 0 LIMIT $1) r),
		coalesce((SELECT at FROM outbox WHERE refused_at = 0 ORDER BY id LIMIT 1), 0)`, limit).Scan(&waiting, &refused, &at)
	return waiting, refused, fromNanos(at), s.readError(ctx, err)
}

// refusedKept bounds what is kept of a tenant's refused rows: that many of the newest,
// and so many bytes of data as they are stored. Older ones are dropped: nobody's
// faults fill the database, and what others publish, for the same tenant too, is
// never refused for them.
const (
	refusedKept  = 10_000
	refusedBytes = 64 << 20
)

// refusedTenants is how many tenants' refused rows one slice of Sweep looks at.
const refusedTenants = 20

// eraseOutbox removes what deleted tenants left there, and of others what is refused
// beyond the bound.
func (sw *sweep) eraseOutbox() error {
	n, err := sw.tx.execCount(`DELETE FROM outbox WHERE id IN (SELECT o.id FROM outbox o LEFT JOIN tenants t ON t.id = o.tenant
		WHERE o.refused_at <> 0 AND coalesce(t.deleted_at, 1) <> 0 LIMIT $1)`, sw.budget)
	sw.budget -= n
	if since := sw.now.Sub(sw.at.refused); err != nil || sw.budget <= 0 || sw.at.refusedOf == 0 && since >= 0 && since < time.Minute {
		return err
	}
	tenants, err := sw.tx.ids(`WITH RECURSIVE r (tenant) AS (
			(SELECT tenant FROM outbox WHERE refused_at <> 0 AND tenant > $1 ORDER BY tenant LIMIT 1)
			UNION ALL
			SELECT (SELECT o.tenant FROM outbox o WHERE o.refused_at <> 0 AND o.tenant > r.tenant ORDER BY o.tenant LIMIT 1) FROM r WHERE r.tenant IS NOT NULL)
		SELECT tenant FROM r WHERE tenant IS NOT NULL LIMIT $2`, sw.at.refusedOf, refusedTenants)
	if err != nil {
		return err
	}
	for _, tenant := range tenants {
		n, err := sw.tx.execCount(`DELETE FROM outbox WHERE id IN (SELECT id FROM (
			SELECT id, row_number() OVER newest AS n, sum(pg_column_size(data)) OVER newest AS bytes FROM outbox WHERE tenant = $1 AND refused_at <> 0
			WINDOW newest AS (ORDER BY id DESC)) r WHERE n > $2 OR n > 1 AND bytes > $3 ORDER BY id LIMIT $4)`, tenant, refusedKept, refusedBytes, sw.budget)
		if err != nil {
			return err
		}
		sw.Refused += n
		if sw.budget -= n; sw.budget <= 0 {
			return nil // this tenant again
		}
		sw.at.refusedOf = tenant
	}
	if len(tenants) < refusedTenants {
		sw.at.refused, sw.at.refusedOf = sw.now, 0
	}
	return nil
}
