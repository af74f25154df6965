package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strconv"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

const (
	// selectNewer finds the rows that hold ids below ?3, newest first; the first one may
	// hold others too.
	selectNewer = `SELECT last, ids FROM postings WHERE list = ?1 AND last >= ?2
		AND last <= coalesce((SELECT min(last) FROM postings WHERE list = ?1 AND last >= ?3), ?3) ORDER BY last DESC LIMIT ?4`
	selectOlder = `SELECT last, ids FROM postings WHERE list = ? AND last > ? ORDER BY last LIMIT ?`

	// listed is the set of the ids that a query is given by encodeIDs.
	listed = `(SELECT value FROM json_each(?1))`

	// listSlice is how many ids are looked at together: at first few, since most pages
	// need no more.
	listSlice     = 256
	listSliceMost = 1024
	// listRows is how many rows are read for a slice, at first and at most.
	listRows     = 2
	listRowsMost = 32
)

// listing reads one list. It is made before the snapshot begins in which it is used:
// an entry that left the memory meanwhile is in the table then.
//
// It meets ids too whose row was deleted since; see [sweep.compactLists].
type listing struct {
	list listKey
	// recent is what was in memory, in ascending order: all that the table may not have.
	recent []int64
	// absent tells that recent is not known: it is another process that has it.
	absent bool
}

func (s *Store) listing(list listKey) *listing {
	if s.role != Serve {
		return &listing{list: list, absent: true}
	}
	return &listing{list: list, recent: s.writer.postings.of(list)}
}

// newest calls each with the ids of from <= id < to, highest first, until it returns
// an error.
func (l *listing) newest(ctx context.Context, q querier, from, to int64, each func(ids []int64) error) error {
	if err := l.load(ctx, q); err != nil {
		return err
	}
	recent := slices.Clone(within(l.recent, from, to))
	slices.Reverse(recent)
	if err := inSlices(recent, each); err != nil {
		return err
	}
	to = l.tableEnd(to)
	for rows := listRows; from < to; rows = min(4*rows, listRowsMost) {
		ids, err := readPostings(ctx, q, selectNewer, int64(l.list), from, to, rows)
		if err != nil {
			return err
		}
		ids = slices.DeleteFunc(ids, func(id int64) bool { return id < from || id >= to })
		if len(ids) == 0 {
			return nil
		}
		to = ids[len(ids)-1]
		if err := inSlices(ids, each); err != nil {
			return err
		}
	}
	return nil
}

// oldest calls each with the ids of after < id < to, lowest first, until it returns
// an error.
func (l *listing) oldest(ctx context.Context, q querier, after, to int64, each func(ids []int64) error) error {
	if err := l.load(ctx, q); err != nil {
		return err
	}
	end := l.tableEnd(to)
	for at, rows := after, listRows; at < end; rows = min(4*rows, listRowsMost) {
		ids, err := readPostings(ctx, q, selectOlder, int64(l.list), at, rows)
		if err != nil {
			return err
		}
		if len(ids) == 0 {
			break
		}
		slices.Sort(ids)
		at = ids[len(ids)-1]
		if err := inSlices(within(ids, after+1, end), each); err != nil {
			return err
		}
	}
	return inSlices(within(l.recent, after+1, to), each)
}

// tableEnd is the bound below which ids are looked for in the table.
func (l *listing) tableEnd(to int64) int64 {
	if len(l.recent) > 0 {
		to = min(to, l.recent[0])
	}
	return to
}

// load reads from the file what the serving process has in memory: slower, but it is
// there.
func (l *listing) load(ctx context.Context, q querier) error {
	if !l.absent {
		return nil
	}
	var at postedState
	err := fill(ctx, q, selectPosted, nil, at.scan)
	if err != nil {
		return err
	}
	query, owner := `SELECT id FROM deliveries NOT INDEXED WHERE id > ? AND endpoint = ? ORDER BY id`, int64(l.list)
	if owner < 0 {
		query, owner = `SELECT id FROM events WHERE id > ? AND tenant = ? ORDER BY id`, -owner
	}
	l.recent, err = all(ctx, q, scanInt, query, at.posted, owner)
	l.absent = err != nil
	return err
}

func readPostings(ctx context.Context, q querier, query string, args ...any) (ids []int64, err error) {
	return ids, fill(ctx, q, query, args, func(r scanner) (err error) {
		ids, err = scanPostings(ids, r)
		return err
	})
}

// scanPostings appends the ids of a row (last, ids).
func scanPostings(ids []int64, r scanner) ([]int64, error) {
	var last int64
	var blob sql.RawBytes
	if err := r.Scan(&last, &blob); err != nil {
		return ids, err
	}
	return appendUnpacked(ids, last, blob)
}

// within is what of ascending ids is from <= id < to.
func within(ids []int64, from, to int64) []int64 {
	low, _ := slices.BinarySearch(ids, from)
	high, _ := slices.BinarySearch(ids, to)
	return ids[low:max(low, high)]
}

func inSlices(ids []int64, each func([]int64) error) error {
	for n := listSlice; len(ids) > 0; n = listSliceMost {
		n = min(n, len(ids))
		if err := each(ids[:n]); err != nil {
			return err
		}
		ids = ids[n:]
	}
	return nil
}

// encodeIDs writes ids as queries take them: see listed.
func encodeIDs(ids []int64) string {
	b := append(make([]byte, 0, 20*len(ids)+2), '[')
	for i, id := range ids {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, id, 10)
	}
	return string(append(b, ']'))
}

// walk is a query for the rows of a page, newest first.
type walk struct {
	query string
	args  []any
	// of is the list whose ids from <= id < to the query takes as its first argument,
	// some at a time; nil for a query that needs none.
	of       *listing
	from, to int64
}

var errLookedEnough = errors.New("enough of the list was looked at")

// run gives the rows to scan until it returns an error, which comes back. A list ends
// the page itself where [store.PageRows] ids were looked at; then left is not 0, and
// nothing below it was.
func (w *walk) run(ctx context.Context, q querier, scan func(scanner) error) (left posthorn.ID, err error) {
	if w.of == nil {
		return 0, fill(ctx, q, w.query, w.args, scan)
	}
	looked := 0
	err = w.of.newest(ctx, q, w.from, w.to, func(ids []int64) error {
		if looked >= store.PageRows {
			return errLookedEnough
		}
		looked += len(ids)
		left = posthorn.ID(ids[len(ids)-1])
		return fill(ctx, q, w.query, append([]any{encodeIDs(ids)}, w.args...), scan)
	})
	if err == errLookedEnough {
		return left, nil
	}
	return 0, err
}
