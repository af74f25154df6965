package posthorn

import "time"

// Delivery is one (event, endpoint) pair, for good. A retry or a replay goes on
// with the same delivery.
type Delivery struct {
	ID       ID
	Event    ID
	EventRef string
	Type     string
	Tenant   int64
	Endpoint int64
	// EndpointRef is the endpoint's public id.
	EndpointRef string
	Progress    Progress
	// Held tells that the delivery is pending and its tenant suspended, or its
	// endpoint paused and the next attempt not one that was asked for by hand.
	Held   bool
	Reason Reason
	// Note is a sentence about how the delivery came to be, such as that the
	// endpoint's filter failed on the event; mostly empty.
	Note      string
	CreatedAt time.Time
	// Attempts are the first 10 and the last 40 made; nil in lists that say so.
	Attempts []Attempt
}

// Progress is where a delivery stands: all that decides what happens to it next.
type Progress struct {
	State State
	// Tries counts all recorded attempts, local faults too. A result is written
	// only if Tries is still what it was when the attempt began.
	Tries int
	// Attempts counts the attempts without the local faults.
	Attempts int
	// Waits counts the waits of the schedule that this round has used.
	Waits int
	// Round counts from 0 how often a replay restarted the schedule.
	Round int
	// Extra marks a finished delivery that was opened for one attempt by hand;
	// Before is the state that whatever ends it but a success puts back.
	Extra  bool
	Before State
	// Manual tells that the next attempt was asked for by hand: it stands outside
	// the line.
	Manual bool
	// NextAt is the earliest time of the next attempt; zero when there is none.
	NextAt time.Time
}

// Ended is the final state that the delivery has: of one that was opened for one
// attempt by hand, the one that it had and has until a success changes it. Pending for
// none.
func (p *Progress) Ended() State {
	if p.Extra {
		return p.Before
	}
	return p.State
}

// State is where a delivery stands in its life; see the package comment.
//
// A later version may have more. They are final, are kept by their numbers, and are
// shown as canceled: the delivery has ended, and nothing says that it arrived.
type State uint8

const (
	Pending State = iota
	Succeeded
	Failed
	Canceled
	Expired
	stateEnd
)

var stateNames = [stateEnd]string{"pending", "succeeded", "failed", "canceled", "expired"}

// String returns the state as the API names it.
func (s State) String() string {
	if s < stateEnd {
		return stateNames[s]
	}
	return stateNames[Canceled]
}

// Final reports whether nothing happens any more unless a user asks for it.
func (s State) Final() bool { return s != Pending }

// ShownState is a state as users see it and filter by it: the states of
// [State], and "held".
type ShownState string

// Held is how a pending delivery of a paused endpoint is shown.
const Held ShownState = "held"

// ShownStates returns all states that users may ask for.
func ShownStates() []ShownState {
	return []ShownState{"pending", Held, "succeeded", "failed", "canceled", "expired"}
}

// Shown is the state that users see.
func (d *Delivery) Shown() ShownState {
	if d.Held && d.Progress.State == Pending {
		return Held
	}
	return ShownState(d.Progress.State.String())
}

// Reason tells why a delivery is canceled or expired. One of a later version is
// kept and shown as it is.
type Reason string

const (
	ReasonNone            Reason = ""
	ReasonUser            Reason = "canceled_by_user"
	ReasonEndpointDeleted Reason = "endpoint_deleted"
	ReasonTenantDeleted   Reason = "tenant_deleted"
	ReasonRetention       Reason = "retention"    // its event's time was over
	ReasonBacklogFull     Reason = "backlog_full" // too many were waiting
	ReasonPayloadErased   Reason = "payload_erased"
)
