// Package posthorn is the glossary of the webhook service: what an event, an
// endpoint, a delivery and an attempt are, which states a delivery goes
// through, when a failed attempt is repeated, and which event types a pattern
// matches. It is pure: no I/O, no clock, no randomness but what callers pass
// in. Everything else in the module speaks these types.
//
//   - A [Tenant] is a partner of the platform. It owns endpoints and events.
//   - An [Endpoint] is a URL of a tenant with the event types it wants.
//   - An [Event] is something that happened, published once.
//   - A [Delivery] is one (event, endpoint) pair, for good.
//   - An [Attempt] is one HTTP request made for a delivery, and what came of it.
//
// # The life of a delivery
//
//	              attempt failed, waits left
//	                 +-----------+
//	                 v           |
//	publish ----> pending ----> attempt ----> succeeded
//	                 |           |
//	                 |           +----------> failed    (no waits left)
//	                 +----------------------> canceled  (by a user, or its endpoint was deleted)
//	                 +----------------------> expired   (its event's retention ended, or the backlog was full)
//
// "held" is not a state of its own: it is what a pending delivery is called
// while its endpoint is paused. See [Step] for the one function that moves a
// delivery.
package posthorn

import "time"

// Version is the product's version, as sent in the User-Agent of deliveries
// and printed by "posthorn version". Release builds set it by the linker.
var Version = "0.1.0-dev"

// Tenant is a partner of the platform: the owner of endpoints and events.
type Tenant struct {
	// ID is internal and never reused, not even after the tenant is deleted.
	ID int64
	// Name is what users see: [A-Za-z0-9][A-Za-z0-9._-]{0,63}.
	Name      string
	CreatedAt time.Time
	// SuspendedAt is zero unless an operator suspended the tenant: then its
	// publishing is refused and its deliveries are held.
	SuspendedAt time.Time
}

// Suspended reports whether the tenant may not publish and is sent nothing.
func (t Tenant) Suspended() bool { return !t.SuspendedAt.IsZero() }

// ValidTenantName reports whether s is [A-Za-z0-9][A-Za-z0-9._-]{0,63}.
func ValidTenantName(s string) bool {
	if len(s) == 0 || len(s) > 64 || !isAlnum(s[0]) {
		return false
	}
	for i := 1; i < len(s); i++ {
		if c := s[i]; !isAlnum(c) && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

func isAlnum(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}
