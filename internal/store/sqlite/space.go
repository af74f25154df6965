package sqlite

import (
	"sync"
	"time"

	"github.com/posthorn/posthorn/internal/store"
)

// space is what is left of the file's disk, looked at once a second. It is safe for
// concurrent use.
type space struct {
	look func() (free, total uint64, err error)
	now  func() time.Time

	mu    sync.Mutex
	at    time.Time
	known bool
	last  store.Room
}

func (s *space) room() (r store.Room, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if d := now.Sub(s.at); d >= 0 && d < time.Second {
		return s.last, s.known
	}
	free, total, err := s.look()
	s.at, s.known, s.last = now, err == nil, store.Room{Free: int64(free), Reserve: int64(store.Reserve(total))}
	return s.last, s.known
}

// Room implements [store.Keeping].
func (s *Store) Room() (store.Room, bool) { return s.writer.space.room() }
