package sqlite

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/posthorn/posthorn/internal/store"
)

// Statistics are durable with what they count, but a row per endpoint and hour
// lies on a page of its own: written at each commit they cost a busy server of
// ten thousand endpoints a third of all that it writes. So a commit appends what
// it counted to stats_log, as one row, and now and then the sum goes into
// endpoint_stats.

const (
	// statsEvery is how long counts may stand in stats_log alone, statsMost how
	// many hours of endpoints may.
	statsEvery = 10 * time.Second
	statsMost  = 20_000
	// statsSlice is how many hours a transaction takes over: some milliseconds.
	statsSlice = 1000
)

// statsLog is the sum of what stats_log holds.
type statsLog struct {
	hours   store.Hours
	since   time.Time // when the first of them came
	merging bool      // until none are left
}

func (l *statsLog) due(now time.Time) bool {
	wait := now.Sub(l.since)
	l.merging = len(l.hours) > 0 && (l.merging || len(l.hours) > statsMost || wait >= statsEvery || wait < 0)
	return l.merging
}

// logStats appends what the transaction counted. It comes last.
func (tx *txn) logStats() error {
	if len(tx.hours) == 0 {
		return nil
	}
	return tx.exec(`INSERT INTO stats_log (body) VALUES (?)`, appendHours(nil, tx.hours))
}

// mergeStats takes at most limit hours of what is logged into endpoint_stats,
// all with 0. A limited one stands alone in its transaction.
func (tx *txn) mergeStats(limit int) error {
	if len(tx.w.stats.hours) == len(tx.merged) {
		return nil
	}
	rest := make(store.Hours)
	for k, s := range tx.w.stats.hours {
		if limit > 0 && len(tx.merged) == limit {
			rest[k] = s
			continue
		}
		if err := tx.addStats(k, s); err != nil {
			return err
		}
		tx.merged = append(tx.merged, k)
	}
	if err := tx.exec(`DELETE FROM stats_log`); err != nil || len(rest) == 0 {
		return err
	}
	return tx.exec(`INSERT INTO stats_log (body) VALUES (?)`, appendHours(nil, rest))
}

// keepStats takes over what the transaction did, which is committed.
func (w *writer) keepStats(tx *txn) {
	l := &w.stats
	for _, k := range tx.merged {
		delete(l.hours, k)
	}
	if len(tx.hours) == 0 {
		return
	}
	if len(l.hours) == 0 {
		l.since = w.now()
	}
	l.hours.Add(tx.hours)
}

// tidyStats does the next slice of what is due.
func (w *writer) tidyStats() {
	if !w.stats.due(w.now()) {
		return
	}
	if err := w.try([]*op{{apply: func(tx *txn) error { return tx.mergeStats(statsSlice) }, done: func(error) {}}}); err != nil {
		w.log.Warn("statistics could not be added up; they are kept and it is tried again", "error", err)
		w.stats.merging, w.stats.since = false, w.now()
	}
}

// readStatsLog reads what the last run left.
func (w *writer) readStatsLog() error {
	w.stats.hours = make(store.Hours)
	return w.conn.rows(`SELECT body FROM stats_log`, nil, func(r scanner) error {
		var body []byte
		if err := r.Scan(&body); err != nil {
			return err
		}
		return readHours(body, w.stats.hours)
	})
}

// An hour is written as varints: endpoint, hour, and its counts.

func appendHours(b []byte, hours store.Hours) []byte {
	for k, h := range hours {
		b = binary.AppendVarint(b, k.Endpoint)
		b = binary.AppendVarint(b, k.Hour)
		for _, n := range h.Counts() {
			b = binary.AppendUvarint(b, uint64(*n))
		}
	}
	return b
}

func readHours(b []byte, hours store.Hours) error {
	broken := false
	varint := func() int64 {
		v, n := binary.Varint(b)
		broken = broken || n <= 0
		b = b[max(n, 0):]
		return v
	}
	for len(b) > 0 && !broken {
		k := store.HourKey{Endpoint: varint(), Hour: varint()}
		h := &store.Hour{}
		for _, count := range h.Counts() {
			v, n := binary.Uvarint(b)
			broken = broken || n <= 0
			b = b[max(n, 0):]
			*count = int(v)
		}
		hours.Add(store.Hours{k: h})
	}
	if broken {
		return errors.New("sqlite: a row of stats_log cannot be read")
	}
	return nil
}
