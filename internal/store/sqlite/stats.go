package sqlite

import (
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// buckets are the upper bounds of the durations that columns b0 to b8 of
// endpoint_stats count; b9 counts what took longer.
var buckets = [...]time.Duration{
	10 * time.Millisecond, 30 * time.Millisecond, 100 * time.Millisecond, 300 * time.Millisecond,
	time.Second, 3 * time.Second, 10 * time.Second, 15 * time.Second, 30 * time.Second,
}

type statKey struct{ endpoint, hour int64 }

// stat is what a transaction adds to an endpoint's hour.
type stat struct {
	ok, failed                              int // attempts
	succeeded, exhausted, canceled, expired int // deliveries
	buckets                                 [len(buckets) + 1]int
}

func (tx *txn) stat(endpoint int64, at time.Time) *stat {
	k := statKey{endpoint, at.Unix() / 3600}
	s, ok := tx.stats[k]
	if !ok {
		s = &stat{}
		tx.stats[k] = s
	}
	return s
}

// countAttempt counts an attempt, unless the fault was ours, and the delivery
// if the attempt finished it.
func (tx *txn) countAttempt(r *store.Result, d *deliveryRow, was, is posthorn.State) {
	if r.Attempt.Class == posthorn.ClassLocal {
		return
	}
	s := tx.stat(d.endpoint, r.EndedAt)
	if r.Attempt.Succeeded() {
		s.ok++
	} else {
		s.failed++
	}
	i := 0
	for i < len(buckets) && r.Attempt.Duration > buckets[i] {
		i++
	}
	s.buckets[i]++
	switch {
	case was == is:
	case is == posthorn.Succeeded:
		s.succeeded++
	case is == posthorn.Failed && !d.progress.Extra:
		s.exhausted++
	}
}

func (tx *txn) writeStats() error {
	for k, s := range tx.stats {
		b := &s.buckets
		if err := tx.exec(`INSERT INTO endpoint_stats (endpoint, hour, ok, failed, succeeded, exhausted, canceled, expired, b0, b1, b2, b3, b4, b5, b6, b7, b8, b9)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT (endpoint, hour) DO UPDATE SET ok = ok + excluded.ok, failed = failed + excluded.failed,
			succeeded = succeeded + excluded.succeeded, exhausted = exhausted + excluded.exhausted,
			canceled = canceled + excluded.canceled, expired = expired + excluded.expired,
			b0 = b0 + excluded.b0, b1 = b1 + excluded.b1, b2 = b2 + excluded.b2, b3 = b3 + excluded.b3, b4 = b4 + excluded.b4,
			b5 = b5 + excluded.b5, b6 = b6 + excluded.b6, b7 = b7 + excluded.b7, b8 = b8 + excluded.b8, b9 = b9 + excluded.b9`,
			k.endpoint, k.hour, s.ok, s.failed, s.succeeded, s.exhausted, s.canceled, s.expired,
			b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9]); err != nil {
			return err
		}
	}
	return nil
}
