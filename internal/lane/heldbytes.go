package lane

import "github.com/posthorn/posthorn/internal/share"

// heldBytes is what the queues hold in bytes, by tenant: three quarters are for whoever
// comes first, the last one is for tenants that hold little. So a tenant that fills what
// it may fill has no other's deliveries parked.
type heldBytes struct {
	most, taken int64
	by          map[int64]int64
}

func newHeldBytes(most int64) heldBytes { return heldBytes{most: most, by: make(map[int64]int64)} }

// add takes bytes, or below 0 gives them back.
func (m *heldBytes) add(tenant, bytes int64) {
	m.taken += bytes
	if m.by[tenant] += bytes; m.by[tenant] == 0 {
		delete(m.by, tenant)
	}
}

// fits reports whether the tenant may take so much more.
func (m *heldBytes) fits(tenant, bytes int64) bool { return bytes <= m.left(tenant) }

// left is what the tenant may take.
func (m *heldBytes) left(tenant int64) int64 {
	left := m.most - m.most/4 - m.taken
	held, holders := m.by[tenant], len(m.by)
	if held == 0 {
		holders++
	}
	return max(left, min(m.most-m.taken, share.Part(m.most, holders)-held))
}
