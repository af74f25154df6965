package sqlite

import (
	"math"
	"slices"
	"time"

	"github.com/posthorn/posthorn/internal/store"
)

// compaction is where the lists' rows are looked at for what was deleted.
type compaction struct {
	due     bool // something was deleted since it began
	running bool
	list    listKey
	last    int64 // rows of the list up to here were looked at; 0: all
}

const (
	// compactRows is how many rows a slice of Sweep looks at, compactEach how many of a
	// list at a time.
	compactRows = 250
	compactEach = 10
)

// table is what a list's ids are of.
func (l listKey) table() string {
	if l < 0 {
		return "events"
	}
	return "deliveries"
}

// selectLiving finds those of given ids whose row is there.
func selectLiving(list listKey) string {
	return `SELECT id FROM ` + list.table() + ` WHERE id IN ` + listed + ` ORDER BY id`
}

// living are those of the ids, of at most a row, whose row is there, in ascending order.
func (tx *txn) living(list listKey, ids []int64) ([]int64, error) {
	return tx.ids(selectLiving(list), encodeIDs(ids))
}

// anyOf reports whether anything of a list is there. A list of which nothing is is
// dropped.
func (tx *txn) anyOf(list listKey) (bool, error) {
	for {
		last, ids, err := tx.firstPostings(list)
		if err != nil {
			return false, err
		}
		if len(ids) == 0 {
			break
		}
		if living, err := tx.living(list, ids); err != nil || len(living) > 0 {
			return true, err
		}
		if err := tx.deletePostings(list, last); err != nil {
			return false, err
		}
	}
	for ids := range slices.Chunk(tx.gathered(list), listSliceMost) {
		if living, err := tx.living(list, ids); err != nil || len(living) > 0 {
			return true, err
		}
	}
	tx.forget(list, math.MaxInt64)
	return false, nil
}

// gathered is what the table does not have of a list, with what this transaction
// added.
func (tx *txn) gathered(list listKey) []int64 {
	ids := tx.w.postings.of(list)
	for _, e := range tx.posted {
		if e.list == list {
			ids = append(ids, e.id)
		}
	}
	return above(ids, tx.gone[list])
}

// firstPostings reads the row with a list's lowest ids; none without one.
func (tx *txn) firstPostings(list listKey) (last int64, ids []int64, err error) {
	err = tx.rows(selectOlder, []any{int64(list), int64(0), 1}, func(r scanner) (err error) {
		ids, err = scanPostings(nil, r)
		return err
	})
	if len(ids) > 0 {
		last = ids[0]
	}
	return last, ids, err
}

func (tx *txn) deletePostings(list listKey, last int64) error {
	return tx.exec(`DELETE FROM postings WHERE list = ? AND last = ?`, int64(list), last)
}

// eraseEvents erases a tenant's events as far as the budget goes, oldest first, and
// reports whether none is left, and some of the budget.
func (sw *sweep) eraseEvents(tenant int64) (gone bool, err error) {
	list := eventsOf(tenant)
	const query = `SELECT ` + oldEventColumns + ` FROM events WHERE id IN ` + listed + ` ORDER BY id LIMIT ?2`
	for sw.budget > 0 {
		last, ids, err := sw.tx.firstPostings(list)
		if err != nil {
			return false, err
		}
		if len(ids) == 0 {
			break
		}
		if err := sw.deleteEvents(query, encodeIDs(ids)); err != nil {
			return false, err
		}
		if living, err := sw.tx.living(list, ids); err != nil || len(living) > 0 {
			return false, err
		}
		if err := sw.tx.deletePostings(list, last); err != nil {
			return false, err
		}
		sw.budget--
	}
	for ids := range slices.Chunk(sw.tx.gathered(list), listSliceMost) {
		if sw.budget <= 0 {
			return false, nil
		}
		if err := sw.deleteEvents(query, encodeIDs(ids)); err != nil {
			return false, err
		}
		if living, err := sw.tx.living(list, ids); err != nil || len(living) > 0 {
			return false, err
		}
		sw.tx.forget(list, ids[len(ids)-1])
	}
	return sw.budget > 0, nil
}

// compactLists takes out of the lists' rows what retention has deleted. It goes
// through all of them once something was.
func (sw *sweep) compactLists() error {
	at := &sw.sweeper.lists
	if !at.running && !at.due || sw.budget <= 0 {
		return nil
	}
	if !at.running {
		*at = compaction{running: true, list: math.MinInt64}
	}
	for left := compactRows; left > 0; {
		if at.last == 0 {
			found, err := sw.tx.row(`SELECT list FROM postings WHERE list > ? ORDER BY list LIMIT 1`, []any{int64(at.list)}, (*int64)(&at.list))
			if err != nil {
				return err
			}
			if !found {
				at.running = false
				return nil
			}
		}
		n, err := sw.compactList(at)
		if err != nil {
			return err
		}
		left -= 1 + n
	}
	sw.More = true
	return nil
}

// compactList looks at some rows of a list, and counts them.
func (sw *sweep) compactList(at *compaction) (n int, err error) {
	type row struct {
		last int64
		ids  []int64
	}
	var rows []row
	err = sw.tx.rows(`SELECT last, ids FROM postings WHERE list = ? AND last > ? AND last < ? ORDER BY last LIMIT ?`,
		[]any{int64(at.list), at.last, int64(sw.before(sw.kept(at.list))), compactEach}, func(r scanner) error {
			ids, err := scanPostings(nil, r)
			if err == nil {
				rows = append(rows, row{ids[0], ids})
			}
			return err
		})
	if err != nil {
		return 0, err
	}
	at.last = 0
	if len(rows) == compactEach {
		at.last = rows[compactEach-1].last
	}
	for _, r := range rows {
		living, err := sw.tx.living(at.list, r.ids)
		if err != nil {
			return 0, err
		}
		if len(living) == len(r.ids) {
			continue
		}
		if err := sw.tx.deletePostings(at.list, r.last); err != nil {
			return 0, err
		}
		if _, err := sw.tx.writePostings(at.list, living); err != nil {
			return 0, err
		}
	}
	return len(rows), nil
}

// kept is the age from which on retention deletes what is in a list.
func (sw *sweep) kept(list listKey) time.Duration {
	if list < 0 {
		return sw.keep.Events + store.ExpiredShown
	}
	return sw.keep.Deliveries + store.ExpiredShown
}
