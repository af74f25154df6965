package posthorn

import "time"

// Endpoint is a URL of a tenant with the patterns of the event types it wants.
type Endpoint struct {
	// ID is internal and never reused; 0 for one that is not stored.
	ID int64
	// Ref is the id that users see: "wh_" and a random ULID.
	Ref         string
	Tenant      int64
	URL         string
	Description string
	Events      []Pattern
	Status      EndpointStatus
	// PausedReason says who paused it; empty while active.
	PausedReason PausedReason
	// PausedAt is when it was paused; zero while active.
	PausedAt time.Time
	// Version counts the changes that users see; it is the ETag.
	Version   int64
	CreatedAt time.Time
	UpdatedAt time.Time
	// SettingsVersion counts the changes of Settings; it is their ETag.
	SettingsVersion int64
	// DeletedAt is zero while the endpoint lives. A deleted one is kept for its
	// log until retention; users see it no more.
	DeletedAt time.Time
	Settings  Settings
}

// Active reports whether attempts may be made.
func (e *Endpoint) Active() bool { return e.Status == StatusActive && e.DeletedAt.IsZero() }

// Matches reports whether the endpoint subscribes to the type. A paused
// endpoint matches too: its deliveries are held.
func (e *Endpoint) Matches(eventType string) bool {
	for _, p := range e.Events {
		if p.Match(eventType) {
			return true
		}
	}
	return false
}

// EndpointStatus is what the user set: active or paused. One of a later version is
// kept as it is; nothing is sent then, so it is shown as paused.
type EndpointStatus string

const (
	StatusActive EndpointStatus = "active"
	StatusPaused EndpointStatus = "paused"
)

// Shown is the status that users see.
func (s EndpointStatus) Shown() EndpointStatus {
	if s == StatusActive {
		return StatusActive
	}
	return StatusPaused
}

// PausedReason says who paused an endpoint. One of a later version is kept and shown
// as it is.
type PausedReason string

const (
	PausedByUser  PausedReason = "user"    // PATCH status, or created paused
	PausedGone    PausedReason = "gone"    // the receiver answered 410
	PausedFailing PausedReason = "failing" // the five-day rule, see [Health.Observe]
)

// Limits of what a user may give.
const (
	MaxURLLength         = 2048
	MaxDescriptionLength = 1024 // characters
	MaxPatterns          = 100
)

// Settings are an endpoint's own delivery rules. The zero value of each field
// means the service's default. They are stored as one JSON document. A later version
// may add members to it; one that is there keeps its type and meaning.
type Settings struct {
	// MaxInFlight bounds the endpoint's attempts at a time; 1 to 256.
	MaxInFlight int `json:"max_in_flight,omitzero"`
	// TimeoutSeconds bounds one attempt; 1 to 30.
	TimeoutSeconds int `json:"timeout_seconds,omitzero"`
	// RetrySchedule holds the waits in seconds between failed attempts; at most
	// 20 of 5 s to 24 h, 7 days in all.
	RetrySchedule []int `json:"retry_schedule,omitzero"`
	// RatePerSecond bounds attempts started; 0.1 to 1000.
	RatePerSecond float64 `json:"rate_per_second,omitzero"`
	// Filter is a CEL expression over type and data.
	Filter string `json:"filter,omitzero"`
	// Headers names the extra request headers. Their values are secrets and kept
	// apart from this document.
	Headers []string `json:"headers,omitzero"`
	// Ordered keeps one delivery at a time, in publish order.
	Ordered bool `json:"ordered,omitzero"`
	// Unknown are the members of the stored document that this version does not
	// know, as a JSON object; empty for none. Stores write them back; nobody shows,
	// compares or changes them.
	Unknown string `json:"-"`
}

// DefaultMaxInFlight and DefaultTimeout hold where settings say nothing.
const (
	DefaultMaxInFlight = 32
	DefaultTimeout     = 15 * time.Second
)

// OwnedLane reports whether all new deliveries are parked behind the endpoint's
// lane, which one process at a time has. An ordered endpoint's are, so that its
// line survives a crash; where processes share the store, so are those of one
// whose attempts must be counted in one place.
func (s Settings) OwnedLane(shared bool) bool {
	return s.Ordered || shared && (s.RatePerSecond > 0 || s.MaxInFlight > 0)
}

// InFlight is the endpoint's limit of concurrent attempts.
func (s Settings) InFlight() int {
	if s.MaxInFlight > 0 {
		return s.MaxInFlight
	}
	return DefaultMaxInFlight
}

// Timeout bounds one attempt, from dial to the answer's headers.
func (s Settings) Timeout() time.Duration {
	if s.TimeoutSeconds > 0 {
		return time.Duration(s.TimeoutSeconds) * time.Second
	}
	return DefaultTimeout
}
