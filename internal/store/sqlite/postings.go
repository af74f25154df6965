package sqlite

import (
	"cmp"
	"errors"
	"maps"
	"math"
	"slices"
	"sort"
	"sync"
)

// A list is what a page of the log goes through: the deliveries of an endpoint, or
// the events of a tenant. With an index each entry dirties a page of its own list,
// which with ten thousand endpoints was two thirds of all that was written. So entries
// stand in memory until there are many of each list, and go into the table postings
// then, many of a list at a time (an inverted index with deferred merging). No entry is
// lost with the process: what is not in the table is read from deliveries and events
// when the file is opened.

// listKey names a list, in the table too.
type listKey int64

func deliveriesOf(endpoint int64) listKey { return listKey(endpoint) }
func eventsOf(tenant int64) listKey       { return listKey(-tenant) }

// postingsVersion is the schema's version from which on there is the table.
const postingsVersion = 2

// posting is an entry of a list.
type posting struct {
	list listKey
	id   int64
}

const (
	// postingsLeast and postingsMost bound how many entries are gathered in memory,
	// 8 bytes each, before they are moved into the table; between them it is
	// postingsEach for each list. They are also what is read when the file is opened.
	postingsLeast = 4096
	postingsMost  = 1 << 18
	postingsEach  = 16
	// postingIDs is how many ids a row has at most: such a row, some 500 bytes, needs
	// no page of its own.
	postingIDs = 128
	// postingRows is how many rows a transaction moves at least; it moves more the more
	// entries it adds, so that moving is always faster than adding.
	postingRows = 16
)

// postings are the entries that are not in the table, in ascending order by list. The
// writer changes them, others read.
type postings struct {
	most int // that are gathered
	pace int // rows that a transaction moves at least

	mu     sync.RWMutex
	recent map[listKey][]int64
	// moving are those up to bound, which are on their way into the table.
	moving map[listKey][]int64

	// The writer's own.
	count int       // of recent
	order []listKey // the lists of moving that are not in the table yet, ascending
	bound int64     // 0 while nothing is moving
	begun bool      // the file has the bound
	buf   []posting // of the next transaction
}

func newPostings(most int) *postings {
	most = cmp.Or(most, postingsMost)
	return &postings{most: most, pace: min(postingRows, 1+most/16), recent: make(map[listKey][]int64)}
}

// of is a copy of a list's entries.
func (p *postings) of(list listKey) []int64 {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return slices.Concat(p.moving[list], p.recent[list])
}

func (p *postings) enough() bool {
	return p.count >= min(max(postingsLeast, postingsEach*len(p.recent)), p.most)
}

// keep takes over what a transaction added, moved and forgot, once it is committed.
func (p *postings) keep(tx *txn) {
	p.mu.Lock()
	for _, list := range p.order[:tx.moved] {
		delete(p.moving, list)
	}
	p.order = p.order[tx.moved:]
	for list, upTo := range tx.gone {
		p.count -= trim(p.recent, list, upTo)
		trim(p.moving, list, upTo)
	}
	for _, e := range tx.posted {
		if e.id <= tx.gone[e.list] {
			continue
		}
		p.recent[e.list] = append(p.recent[e.list], e.id)
		p.count++
	}
	p.buf = tx.posted[:0]
	p.begun = p.begun || tx.begun
	if tx.allMoved {
		p.moving, p.bound, p.begun = nil, 0, false
	}
	begin := p.bound == 0 && p.enough()
	if begin {
		p.moving, p.recent, p.count = p.recent, make(map[listKey][]int64, len(p.recent)), 0
	}
	p.mu.Unlock()
	if begin {
		p.begin(int64(tx.last))
	}
}

func (p *postings) begin(bound int64) {
	p.order, p.bound = slices.Sorted(maps.Keys(p.moving)), bound
}

// post adds an entry.
func (tx *txn) post(list listKey, id int64) {
	tx.posted = append(tx.posted, posting{list, id})
}

// forget takes out of the memory what of a list is not there any more: all up to an
// id.
func (tx *txn) forget(list listKey, upTo int64) {
	if tx.gone == nil {
		tx.gone = make(map[listKey]int64)
	}
	tx.gone[list] = upTo
}

// trim takes the ids up to upTo out of a list.
func trim(lists map[listKey][]int64, list listKey, upTo int64) (n int) {
	rest := above(lists[list], upTo)
	n = len(lists[list]) - len(rest)
	if len(rest) == 0 {
		delete(lists, list)
	} else {
		lists[list] = rest
	}
	return n
}

// above is what of ascending ids is above id.
func above(ids []int64, id int64) []int64 {
	i := sort.Search(len(ids), func(i int) bool { return ids[i] > id })
	return ids[i:]
}

// What of meta says how far the table is: entries up to posted are in it, those up to
// posting are on their way, 0 while none are. Who begins anew where another process
// died writes the same rows once more.
const (
	metaPosted  = "posted"
	metaPosting = "posting"
)

// movePostings takes some lists further into the table. Nothing waits for it, so it
// leaves what is left of a full disk to others.
func (tx *txn) movePostings() error {
	p := tx.w.postings
	if p.bound == 0 || tx.w.spaceIsLow() {
		return nil
	}
	rows := p.pace + len(tx.posted)/4
	for tx.moved < len(p.order) && rows > 0 {
		list := p.order[tx.moved]
		tx.moved++
		n, err := tx.writePostings(list, above(p.moving[list], tx.gone[list]))
		if err != nil {
			return err
		}
		rows -= n
	}
	if tx.moved == len(p.order) {
		tx.allMoved = true
		return tx.setPosted(p.bound)
	}
	if p.begun {
		return nil
	}
	tx.begun = true
	return tx.setMeta(metaPosting, p.bound)
}

func (tx *txn) setPosted(bound int64) error {
	if err := tx.setMeta(metaPosted, bound); err != nil {
		return err
	}
	return tx.setMeta(metaPosting, 0)
}

func (tx *txn) writePostings(list listKey, ids []int64) (rows int, err error) {
	for ids := range slices.Chunk(ids, postingIDs) {
		last, blob := packIDs(ids)
		if err := tx.exec(`INSERT OR REPLACE INTO postings (list, last, ids) VALUES (?, ?, ?)`, int64(list), last, blob); err != nil {
			return rows, err
		}
		rows++
	}
	return rows, nil
}

// postedState is what the file says of its postings.
type postedState struct{ posted, posting int64 }

const selectPosted = `SELECT key, value FROM meta WHERE key IN ('` + metaPosted + `', '` + metaPosting + `')`

func (s *postedState) scan(r scanner) error {
	var key string
	var value int64
	err := r.Scan(&key, &value)
	switch key {
	case metaPosted:
		s.posted = value
	case metaPosting:
		s.posting = value
	}
	return err
}

// recoverPostings reads what is not in the table. Of a file that has much of it, as
// those of older versions, most is written there first.
func (tx *txn) recoverPostings() error {
	var at postedState
	if err := tx.rows(selectPosted, nil, at.scan); err != nil {
		return err
	}
	p := tx.w.postings
	for {
		far, err := tx.farFrom(at.posted)
		if err != nil {
			return err
		}
		if far == 0 {
			break
		}
		if at.posting != 0 {
			far = at.posting
		}
		entries := make(map[listKey][]int64)
		if err := tx.unposted(at.posted, far, func(e posting) { entries[e.list] = append(entries[e.list], e.id) }); err != nil {
			return err
		}
		for _, list := range slices.Sorted(maps.Keys(entries)) {
			if _, err := tx.writePostings(list, entries[list]); err != nil {
				return err
			}
		}
		if err := tx.setPosted(far); err != nil {
			return err
		}
		at = postedState{posted: far}
	}
	p.moving = make(map[listKey][]int64)
	err := tx.unposted(at.posted, math.MaxInt64, func(e posting) {
		if e.id <= at.posting {
			p.moving[e.list] = append(p.moving[e.list], e.id)
			return
		}
		p.recent[e.list] = append(p.recent[e.list], e.id)
		p.count++
	})
	p.begin(at.posting)
	p.begun = at.posting != 0
	return err
}

// farFrom is an id so far above another that its entries and those between are as
// many as shall be in memory; 0 when there are not so many.
func (tx *txn) farFrom(id int64) (far int64, err error) {
	for _, query := range []string{
		`SELECT id FROM deliveries NOT INDEXED WHERE id > ? ORDER BY id LIMIT 1 OFFSET ?`,
		`SELECT id FROM events NOT INDEXED WHERE id > ? ORDER BY id LIMIT 1 OFFSET ?`,
	} {
		var found int64
		if _, err := tx.row(query, []any{id, 2 * tx.w.postings.most}, &found); err != nil {
			return 0, err
		}
		if found != 0 && (far == 0 || found < far) {
			far = found
		}
	}
	return far, nil
}

// unposted calls each for the entries above an id, up to another; those of a list come
// in ascending order.
func (tx *txn) unposted(posted, upTo int64, each func(posting)) error {
	meet := func(r scanner) error {
		var e posting
		err := r.Scan((*int64)(&e.list), &e.id)
		if err == nil {
			each(e)
		}
		return err
	}
	return errors.Join(
		tx.rows(`SELECT endpoint, id FROM deliveries NOT INDEXED WHERE id > ? AND id <= ? ORDER BY id`, []any{posted, upTo}, meet),
		tx.rows(`SELECT -tenant, id FROM events NOT INDEXED WHERE id > ? AND id <= ? ORDER BY id`, []any{posted, upTo}, meet))
}
