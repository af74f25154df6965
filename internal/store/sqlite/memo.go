package sqlite

import (
	"sync"
	"time"

	"github.com/posthorn/posthorn"
)

const (
	// successEvery is how old the time of an endpoint's last success may get in
	// the file while nothing else of its health changes. A row for each success
	// cost a busy server of many endpoints a page each.
	successEvery = time.Minute
	// memoMost is how many endpoints are remembered, about 200 bytes each.
	memoMost = 50_000
)

// memo is what the writer remembers of endpoints' health from one transaction to
// the next. It holds as long as no other process commits.
type memo struct {
	mu      sync.RWMutex // the writer changes it, others read
	health  map[int64]healthRow
	most    int   // memoMost, fewer in tests
	version int64 // of the data, by which commits of others are noticed
}

// set changes the health. The time of a success alone is written once in a
// while.
func (h *healthRow) set(now posthorn.Health) {
	was := h.Health
	was.LastSuccess = now.LastSuccess
	sinceStored := now.LastSuccess.Sub(h.stored)
	h.dirty = h.dirty || was != now || h.stored.IsZero() && !now.LastSuccess.IsZero() || sinceStored >= successEvery || sinceStored < 0
	h.Health = now
}

func (m *memo) of(endpoint int64) (healthRow, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	h, ok := m.health[endpoint]
	return h, ok
}

// latest is the health with what the file does not have yet.
func (m *memo) latest(endpoint int64, h posthorn.Health) posthorn.Health {
	if r, ok := m.of(endpoint); ok && r.LastSuccess.After(h.LastSuccess) {
		h.LastSuccess = r.LastSuccess
	}
	return h
}

// keep takes over what a transaction wrote or read, once it is committed; beyond
// memoMost only what the file does not have.
func (m *memo) keep(health map[int64]*healthRow) {
	if len(health) == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.health == nil {
		m.health = make(map[int64]healthRow)
	}
	for endpoint, h := range health {
		m.health[endpoint] = *h
		if h.gone || len(m.health) > m.most && h.LastSuccess.Equal(h.stored) {
			delete(m.health, endpoint)
		}
	}
}

// excess is how many endpoints are remembered beyond the most.
func (m *memo) excess() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return max(len(m.health)-m.most, 0)
}

// checkMemo forgets all that the file has when another process has committed. It
// is called within a transaction, so that none can after it.
func (w *writer) checkMemo() error {
	var v int64
	if err := w.readDataVersion(&v); err != nil || v == w.memo.version {
		return err
	}
	w.memo.mu.Lock()
	defer w.memo.mu.Unlock()
	w.memo.version = v
	for endpoint, h := range w.memo.health {
		if h.LastSuccess.Equal(h.stored) {
			delete(w.memo.health, endpoint)
		} else {
			h.stale = true
			w.memo.health[endpoint] = h
		}
	}
	return nil
}

// writeSuccesses has up to limit of the last successes written that the file does
// not have.
func (tx *txn) writeSuccesses(limit int) error {
	for _, endpoint := range tx.w.memo.unwritten(limit) {
		h, err := tx.healthOf(endpoint)
		if err != nil {
			return err
		}
		h.dirty = true
	}
	return nil
}

// unwritten is up to limit endpoints of whose last success the file does not have
// the time.
func (m *memo) unwritten(limit int) (endpoints []int64) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for endpoint, h := range m.health {
		if len(endpoints) >= limit {
			break
		}
		if !h.LastSuccess.Equal(h.stored) {
			endpoints = append(endpoints, endpoint)
		}
	}
	return endpoints
}
