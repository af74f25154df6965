package access

import (
	"context"
	"time"
)

// Flush tells the store when tokens were last used. The app calls it once a
// minute and at the end. What could not be written is kept for the next time.
func (a *Authenticator) Flush(ctx context.Context) error {
	uses, entries := a.unflushedUses()
	if len(uses) == 0 {
		return nil
	}
	err := a.store.TouchTokens(ctx, uses)
	a.mu.Lock()
	defer a.mu.Unlock()
	if err == nil {
		for _, e := range entries {
			e.flushed.Store(uses[e.token].UnixMilli())
		}
		return nil
	}
	for token, at := range uses {
		if at.After(a.unflushed[token]) {
			a.unflushed[token] = at
		}
	}
	return err
}

// unflushedUses collects what the store does not know yet, and lets go of
// principals that have been idle for long.
func (a *Authenticator) unflushedUses() (map[int64]time.Time, []*entry) {
	a.mu.Lock()
	defer a.mu.Unlock()
	uses := a.unflushed
	a.unflushed = make(map[int64]time.Time)
	var entries []*entry
	idle := a.now().Add(-idleAfter).UnixMilli()
	for hash, e := range a.known {
		used := e.used.Load()
		if used != e.flushed.Load() && !e.jwt {
			if at := time.UnixMilli(used).UTC(); at.After(uses[e.token]) {
				uses[e.token] = at
			}
			entries = append(entries, e)
		} else if used < idle {
			delete(a.known, hash)
		}
	}
	return uses, entries
}
