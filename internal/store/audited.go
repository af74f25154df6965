package store

import (
	"time"

	"github.com/posthorn/posthorn"
)

// auditedState is what the audit shows of a delivery or a replay.
type auditedState struct {
	State string `json:"state"`
}

// AuditRetry is a retry by hand of a delivery that was in a state.
func AuditRetry(id posthorn.ID, before posthorn.State) Audit {
	return Audit{Action: "delivery.retry", Subject: id.Text(posthorn.DeliveryPrefix), Before: auditedState{before.String()}, After: auditedState{posthorn.Pending.String()}}
}

// AuditCancel is the cancellation of a delivery, which is in a state then.
func AuditCancel(id posthorn.ID, state posthorn.State) Audit {
	return Audit{Action: "delivery.cancel", Subject: id.Text(posthorn.DeliveryPrefix), Before: auditedState{posthorn.Pending.String()}, After: auditedState{state.String()}}
}

// auditedCancellation is what the audit shows of many cancellations.
type auditedCancellation struct {
	Canceled int                `json:"canceled"`
	Types    []posthorn.Pattern `json:"types,omitempty"`
	Until    time.Time          `json:"until,omitzero"`
}

// AuditCancelEvent is the cancellation of an event's deliveries.
func AuditCancelEvent(ref string, canceled int) Audit {
	return Audit{Action: "event.cancel", Subject: ref, After: auditedCancellation{Canceled: canceled}}
}

// AuditCancelPending is a commit's part of the cancellation of what waits for an
// endpoint.
func AuditCancelPending(ref string, f *CancelFilter, canceled int) Audit {
	return Audit{Action: "endpoint.cancel_pending", Subject: ref, After: auditedCancellation{canceled, f.Types, f.Until.UTC()}}
}

// AuditReplay is the creation of a replay.
func AuditReplay(r *posthorn.Replay) Audit {
	type created struct {
		Endpoint  string                   `json:"endpoint"`
		Selection posthorn.ReplaySelection `json:"selection"`
		Total     int                      `json:"total"`
	}
	return Audit{Action: "replay.create", Subject: r.Ref, After: created{r.EndpointRef, r.Selection, r.Total}}
}

// AuditReplayState is a change of a replay's state by a user.
func AuditReplayState(ref string, before, after posthorn.ReplayState) Audit {
	verb := map[posthorn.ReplayState]string{posthorn.ReplayRunning: "resume", posthorn.ReplayPaused: "pause", posthorn.ReplayCanceled: "cancel"}[after]
	return Audit{Action: "replay." + verb, Subject: ref, Before: auditedState{before.String()}, After: auditedState{after.String()}}
}
