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

// keep takes over what a transaction wrote or read, once it is committed.
func (m *memo) keep(health map[int64]*healthRow) {
	if len(health) == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.health == nil || len(m.health) > memoMost {
		m.health = make(map[int64]healthRow)
	}
	for endpoint, h := range health {
		if h.gone {
			delete(m.health, endpoint)
		} else {
			m.health[endpoint] = *h
		}
	}
}

// checkMemo forgets all when another process has committed. It is called within
// a transaction, so that none can after it.
func (w *writer) checkMemo() error {
	var v int64
	if err := w.readDataVersion(&v); err != nil || v == w.memo.version {
		return err
	}
	w.memo.mu.Lock()
	defer w.memo.mu.Unlock()
	w.memo.health, w.memo.version = nil, v
	return nil
}

// writeSuccesses writes the last successes that the file does not have.
func (tx *txn) writeSuccesses() {
	tx.w.memo.mu.RLock()
	defer tx.w.memo.mu.RUnlock()
	for endpoint, h := range tx.w.memo.health {
		if _, ok := tx.health[endpoint]; !ok && h.LastSuccess != h.stored {
			h.dirty = true
			tx.health[endpoint] = &h
		}
	}
}
