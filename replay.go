package posthorn

import "time"

// Replay sends again what an endpoint did not get. What it sends is fixed when
// it is made; it feeds the endpoint little by little, behind new events.
type Replay struct {
	ID          int64
	Ref         string // rpl_ + ULID
	Tenant      int64
	Endpoint    int64
	EndpointRef string
	Selection   ReplaySelection
	State       ReplayState
	// Total is what was selected when it was made. Sent were handed to the
	// endpoint's line; of them Succeeded and Failed have ended. Skipped are those
	// that could not be sent any more.
	Total, Sent, Skipped, Succeeded, Failed int
	CreatedAt, UpdatedAt                    time.Time
}

// ReplaySelection says what a replay sends. It is stored as one JSON document, which
// is never written again. Members that this version does not know are skipped: what
// narrows the selection further needs a [ReplayState] of its own beside them.
type ReplaySelection struct {
	// Since and Until are times of the event's acceptance: Since <= t < Until.
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
	// Types are event types and patterns; empty for all.
	Types []Pattern `json:"types,omitempty"`
	// States are final ones, as shown.
	States []ShownState `json:"states,omitempty"`
	// Missing selects events that the endpoint has no delivery of because it did
	// not exist yet, instead of deliveries.
	Missing bool `json:"missing,omitempty"`
	// RatePerSecond bounds how many are handed over in a second; 0 for no bound.
	RatePerSecond float64 `json:"rate_per_second,omitempty"`
}

// WantsType reports whether events of the type are selected.
func (s *ReplaySelection) WantsType(eventType string) bool {
	if len(s.Types) == 0 {
		return true
	}
	for _, p := range s.Types {
		if p.Match(eventType) {
			return true
		}
	}
	return false
}

// ReplayStates are the states that a replay selects when none are named.
func ReplayStates() []ShownState { return []ShownState{"failed", "expired"} }

// ReplayableStates are the states that a replay may select.
func ReplayableStates() []ShownState {
	return []ShownState{"succeeded", "failed", "canceled", "expired"}
}

// ParseState is the reverse of [State.String]; Pending for anything else.
func ParseState(name ShownState) State {
	for s, n := range stateNames {
		if n == string(name) {
			return State(s)
		}
	}
	return Pending
}

// ReplayState is where a replay stands. A later version may have more. They are
// final, are kept by their numbers, and are shown as canceled: this version hands
// nothing over for them.
type ReplayState uint8

const (
	ReplayRunning ReplayState = iota
	ReplayPaused
	// ReplayCompleted: all that was selected was handed over or skipped. What was
	// handed over may still be on its way.
	ReplayCompleted
	ReplayCanceled
	replayStateEnd
)

var replayStateNames = [replayStateEnd]string{"running", "paused", "completed", "canceled"}

// String returns the state as the API names it.
func (s ReplayState) String() string {
	if s < replayStateEnd {
		return replayStateNames[s]
	}
	return replayStateNames[ReplayCanceled]
}

// Final reports whether nothing more is handed over.
func (s ReplayState) Final() bool { return s >= ReplayCompleted }
