package publish

import (
	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// handover carries the slots of one publication from their reservation to their
// end. A slot that is not settled would narrow its lane for good.
type handover struct {
	p     *store.Publication
	slots []Slot // of all deliveries, in order; nil once settled
	// committed tells what became of the slots that accept did not reach.
	committed bool
}

// reserve takes a slot for every target and marks those to be stored parked. A
// delayed event takes no part in the queue now: its slot only tells the lane that
// there will be something.
func (h *handover) reserve(lanes Lanes) {
	total := 0
	for i := range h.p.Events {
		total += len(h.p.Events[i].Targets)
	}
	h.slots = make([]Slot, 0, total)
	for i := range h.p.Events {
		e := &h.p.Events[i]
		for j := range e.Targets {
			t := &e.Targets[j]
			var slot Slot
			if t.Owned {
				slot = lanes.ReserveParked(t.Endpoint)
			} else {
				slot = lanes.Reserve(h.p.Tenant, t.Endpoint, len(e.Body))
			}
			h.slots = append(h.slots, slot)
			t.Parked = e.DeliverAt.IsZero() && slot.Parked()
		}
	}
}

// accept hands over what the store has committed and owns, and settles the rest.
func (h *handover) accept(stored []store.Accepted) {
	h.committed = true
	first := 0
	for i := range stored {
		e, a := &h.p.Events[i], &stored[i]
		if e.Key == "" {
			// The store may have filled a copy; the lanes send this one.
			posthorn.FillRef(e.Body, a.ID)
		}
		for j := range e.Targets {
			at := first + j
			slot := h.slots[at]
			h.slots[at] = nil
			switch {
			case a.Repeated:
				slot.Release()
			case j >= a.Open, e.Targets[j].Parked, !e.DeliverAt.IsZero():
				slot.Stored()
			default:
				slot.Accept(h.work(e, a, j))
			}
		}
		first += len(e.Targets)
	}
}

func (h *handover) work(e *store.NewEvent, a *store.Accepted, j int) store.Work {
	return store.Work{
		ID: a.ID + 1 + posthorn.ID(j), Gen: a.Gen, Event: a.ID, EventKey: e.Key, Type: e.Type,
		Tenant: h.p.Tenant, Endpoint: e.Targets[j].Endpoint, Kind: e.Kind,
		Progress:   posthorn.Progress{NextAt: h.p.At},
		AcceptedAt: h.p.At, Size: len(e.Body), Body: e.Body,
	}
}

// settle ends the slots that are left: of a commit that failed, or after a panic.
func (h *handover) settle() {
	for _, slot := range h.slots {
		switch {
		case slot == nil:
		case h.committed:
			slot.Stored()
		default:
			slot.Release()
		}
	}
	h.slots = nil
}
