package sim

import (
	"maps"
	"slices"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/storetest"
)

// settle makes all well again and waits until everything has ended; one endpoint
// may stay paused, until its deliveries outlive their events.
func (p *play) settle() {
	p.run.faults.clear()
	p.full.Store(false)
	wait(2 * second) // the store looks at the disk once a second
	for i := range p.tenants {
		p.suspend(&p.tenants[i], false)
	}
	// What was refused to the publishers is made up for.
	c := chanceOf(p.script.Seed, 5)
	for range max(0, eventsPerWorld-p.history.promised()) * min(1, len(p.script.Steps)) {
		p.send(p.tenants[c.IntN(len(p.tenants))], p.event(c))
	}
	p.measure()
	p.sending(true)
	for _, e := range p.everyEndpoint() {
		p.receivers.answer(e.host, status(200))
	}
	wait(minute) // the last attempt that a receiver spoiled is over
	var asleep *endpoint
	if i := p.script.Asleep; i >= 0 && !p.gone[p.cast[i]] {
		asleep = p.cast[i]
		p.pause(asleep)
		for i := range p.tenants {
			p.send(p.tenants[i], p.event(chanceOf(p.script.Seed, 4)))
		}
	}
	for _, e := range p.everyEndpoint() {
		if !p.gone[e] && e != asleep {
			p.resume(e)
		}
	}
	p.sweep(p.now()) // cancels what the deleted left
	if !p.rest(asleep, true) {
		p.unended()
	}
	// What an error of the store left behind, and nobody was promised, ends with
	// the next start.
	p.stop()
	p.open()
	p.rest(asleep, false)
	p.history.settled = true
	if s := p.run.engine.Stats(); s.InFlight+s.Queued+s.Unrecorded != 0 || s.QueuedBytes != 0 {
		p.history.wrong(kindOpen, "the engine is not at rest: %s", figures(s))
	}
	if p.remember(p.run.store); asleep != nil {
		p.outlive(asleep)
	}
}

// rest waits until nothing is open but what the one asleep holds, and perhaps
// what an error of the store left, and reports whether that came to be.
func (p *play) rest(asleep *endpoint, orLeft bool) bool {
	for range 12 * 24 {
		counts, err := p.run.store.Counts(p.Context())
		p.ok(err)
		held := 0
		if asleep != nil {
			_, held, _, err = p.run.store.EndpointHealth(p.Context(), asleep.ID, 10_000)
			p.ok(err)
		}
		if counts.Open == held || orLeft && counts.Open == held+p.left(asleep) {
			wait(second)
			return true
		}
		wait(hour)
	}
	return false
}

// left counts the open deliveries of events whose publish was answered with an
// error after its commit.
func (p *play) left(asleep *endpoint) (n int) {
	for _, f := range p.history.events {
		if !f.denied {
			continue
		}
		for id, e := range f.targets {
			d, err := p.run.store.DeliveryByID(p.Context(), f.tenant, id)
			p.ok(err)
			if !d.Progress.State.Final() && (asleep == nil || e != asleep.ID) {
				n++
			}
		}
	}
	return n
}

// unended tells which deliveries never ended though nobody restarted the
// process.
func (p *play) unended() {
	for _, f := range p.history.events {
		for id, e := range f.targets {
			d, err := p.run.store.DeliveryByID(p.Context(), f.tenant, id)
			p.ok(err)
			if l := p.endpoints[e]; f.promised && !f.denied && d.Progress.State == posthorn.Pending && !d.Held {
				p.history.wrong(kindOpen, "%s of event %s to endpoint %d (%s), next at %s, before a restart",
					id.Text(posthorn.DeliveryPrefix), f.ref, e, l.Status, d.Progress.NextAt.Format(time.DateTime))
			}
		}
	}
}

// outlive lets the events of the one asleep grow old: what it holds expires.
func (p *play) outlive(asleep *endpoint) {
	held, _, err := p.run.store.Deliveries(p.Context(), store.DeliveryFilter{Tenant: asleep.Tenant, Endpoint: asleep.ID, State: posthorn.Held}, store.Page{Limit: 1000})
	p.ok(err)
	if len(held) == 0 {
		return
	}
	countN(len(held), "transition: pending -> held")
	newest := held[0].ID.Time() // the retention goes by ids, which may be ahead of a clock that stepped back
	for _, d := range held {
		if d.ID.Time().After(newest) {
			newest = d.ID.Time()
		}
	}
	storetest.Sweep(p, p.run.store, newest.Add(30*day+minute), store.Retention{Events: 30 * day})
	for _, d := range held {
		now, err := p.run.store.DeliveryByID(p.Context(), asleep.Tenant, d.ID)
		switch {
		case err != nil: // erased, an hour after it expired
		case now.Progress.State != posthorn.Expired || now.Reason != posthorn.ReasonRetention:
			p.history.wrong(kindOpen, "%s outlived its event and is %s (%q)", d.ID.Text(posthorn.DeliveryPrefix), now.Shown(), now.Reason)
		default:
			count("transition: held -> expired (retention)")
		}
	}
}

// everyEndpoint is all of them, in the order of their creation.
func (w *world) everyEndpoint() (all []*endpoint) {
	for _, id := range slices.Sorted(maps.Keys(w.endpoints)) {
		all = append(all, w.endpoints[id])
	}
	return all
}

// promised counts the events that were answered 202.
func (h *history) promised() (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, f := range h.events {
		if f.promised {
			n++
		}
	}
	return n
}
