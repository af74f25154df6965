package publish

import (
	"errors"
	"fmt"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/share"
	"github.com/posthorn/posthorn/internal/store"
)

// Keeping is what publishing asks about room; see [store.Keeping].
type Keeping interface {
	Kept(tenant int64) store.Kept
	Room() (store.Room, bool)
}

// roomRetry is when whoever keeps too much should try again: retention makes room
// slowly.
const roomRetry = time.Minute

// errNoRoom has the outbox of a tenant that keeps too much rest: it is no news.
var errNoRoom = errors.New("publish: the tenant keeps too much")

// room refuses a publish of a tenant that keeps more than its share while room is
// short, or more than each may keep. What retries asks again, so nothing of the
// request is remembered.
func (s *Service) room(p *store.Publication) error {
	if s.cfg.Keeping == nil {
		return nil
	}
	var room share.Room
	if r, known := s.cfg.Keeping.Room(); known {
		room = share.Room{Free: r.Free, Reserve: r.Reserve}
	}
	if s.cfg.TenantBytes == 0 && !room.Short() {
		return nil
	}
	more := int64(0)
	for i := range p.Events {
		more += store.Weight(len(p.Events[i].Body), 0)
	}
	k := s.cfg.Keeping.Kept(p.Tenant)
	most, err := share.Bytes(room, share.Kept{Own: k.Own, All: k.All, Parties: k.Tenants}, more, s.cfg.TenantBytes)
	switch err {
	case nil:
		return nil
	case share.ErrFull:
		return store.ErrFull
	}
	s.cfg.Refused()
	message := "The tenant keeps %s of events, and room is short, so that no tenant may keep more than an equal share (%s). " +
		"Retention makes room; erase payloads that are not needed, or ask the operator for more room."
	if most == s.cfg.TenantBytes {
		message = "The tenant keeps %s of events, and may keep %s. Retention makes room; erase payloads that are not needed, or ask the operator for a higher bound."
	}
	return &posthorn.Error{Code: posthorn.RateLimited, Message: fmt.Sprintf(message, size(k.Own), size(most)), RetryAfter: roomRetry}
}

// size writes bytes for people.
func size(n int64) string {
	const units = "KMGTP"
	if n < 1024 {
		return fmt.Sprintf("%d bytes", n)
	}
	f, i := float64(n)/1024, 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	return fmt.Sprintf("%.1f %ciB", f, units[i])
}
