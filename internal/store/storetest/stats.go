package storetest

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

var statsPromises = []promise{
	{"statistics equal a recount of the log", func(w *world) {
		seed := rand.Uint64()
		w.Logf("seed %d", seed)
		s := &statsWorld{world: w, Rand: rand.New(rand.NewPCG(seed, 0))}
		s.from = w.now.Unix() / 3600
		for range 5 {
			s.endpoints = append(s.endpoints, w.endpoint())
		}
		for i := range 240 {
			s.step()
			if i == 160 {
				w.ok(w.s.DeleteEndpoint(w.Context(), w.change(), w.tenant.ID, s.endpoints[4].Ref, 0))
				w.sweep(store.Retention{})
				s.gone = true
			}
		}
		s.compare()
	}},
	{"statistics are of the tenant and of the hours that are asked for", func(w *world) {
		other := w.newTenant("other")
		mine, theirs := w.endpoint(), w.endpointOf(other)
		w.record(w.result(w.send(mine), mine, 0, succeeds()))
		p := w.publication(w.event("", theirs))
		p.Tenant, p.SetVersion = other.ID, w.setVersion(other)
		a, err := w.s.Publish(w.Context(), p)
		w.ok(err)
		w.record(w.result(a[0].ID+1, theirs, 0, fails()))
		hour := w.now.Unix() / 3600
		for _, tc := range []struct {
			f    store.StatsFilter
			want int
		}{
			{store.StatsFilter{Tenant: w.tenant.ID, From: hour, Until: hour + 1}, 1},
			{store.StatsFilter{Tenant: w.tenant.ID, Endpoint: mine.ID, From: hour - 5, Until: hour + 1}, 1},
			{store.StatsFilter{Tenant: w.tenant.ID, Endpoint: theirs.ID, From: hour, Until: hour + 1}, 0},
			{store.StatsFilter{Tenant: w.tenant.ID, From: hour + 1, Until: hour + 2}, 0},
			{store.StatsFilter{Tenant: w.tenant.ID, From: hour - 1, Until: hour}, 0},
		} {
			tc.f.Step = 24
			got, err := w.s.Stats(w.Context(), tc.f)
			w.ok(err)
			if len(got) != tc.want || tc.want == 1 && (got[0].OK != 1 || got[0].Failed != 0 || got[0].Start != tc.f.From) {
				w.Errorf("%+v gives %+v", tc.f, got)
			}
		}
	}},
}

// statsWorld does what users, receivers and the clock may do, at random.
type statsWorld struct {
	*world
	*rand.Rand
	from      int64 // Unix hour
	gone      bool  // the last endpoint was deleted; attempts were under way
	endpoints []posthorn.Endpoint
	open      []posthorn.ID
	kinds     map[posthorn.ID]posthorn.EventKind
}

func (s *statsWorld) step() {
	switch s.IntN(6) {
	case 4:
		s.byHand()
	case 0:
		s.now = s.now.Add(time.Duration(s.IntN(50)) * time.Minute)
		if s.IntN(2) == 0 { // attempts end in the next hour
			s.now = s.now.Truncate(time.Hour).Add(time.Hour - time.Second)
		}
		s.claimDue(1000)
	case 1:
		s.publishSome()
	default:
		for range 1 + s.IntN(4) {
			s.attempt()
		}
	}
}

func (s *statsWorld) publishSome() {
	to := s.endpoints[s.IntN(len(s.endpoints))]
	if s.gone {
		to = s.endpoints[s.IntN(len(s.endpoints)-1)]
	}
	e := s.event("", to)
	if s.IntN(4) == 0 {
		e.Kind = posthorn.EventTest
	}
	p := s.publication(e)
	if p.BacklogLimit = 1_000_000; s.IntN(6) == 0 {
		p.BacklogLimit = 1
	}
	got, err := s.s.Publish(s.Context(), p)
	s.ok(err)
	id := got[0].ID + 1
	s.open = append(s.open, id)
	if s.kinds == nil {
		s.kinds = map[posthorn.ID]posthorn.EventKind{}
	}
	s.kinds[id] = e.Kind
}

// logged is how many attempts the log keeps of a delivery; what it leaves out cannot
// be counted again.
const logged = store.KeptFirst + store.KeptLast

// attempt records a result of a delivery that is open, or was settled while the
// attempt was under way.
func (s *statsWorld) attempt() {
	if len(s.open) == 0 {
		return
	}
	id := s.open[s.IntN(len(s.open))]
	before := s.delivery(id)
	if before.Progress.Tries >= logged {
		return
	}
	r := s.result(id, posthorn.Endpoint{ID: before.Endpoint, Tenant: before.Tenant}, before.Progress.Tries, outcomes[s.IntN(len(outcomes)-1)])
	r.Kind = s.kinds[id]
	r.Attempt.Duration = time.Duration(s.Float64() * s.Float64() * float64(35*time.Second)).Truncate(time.Microsecond)
	r.EndedAt = r.Attempt.At.Add(r.Attempt.Duration) // perhaps in the next hour
	s.record(r)
}

// byHand does what users may do to a delivery, or to all of an endpoint.
func (s *statsWorld) byHand() {
	if len(s.open) == 0 {
		return
	}
	id := s.open[s.IntN(len(s.open))]
	switch s.IntN(4) {
	case 0, 1: // what the store refuses changes nothing
		_, _ = s.retry(store.RetryOrder{Delivery: id, Held: holds(id)})
	case 2:
		_, _ = s.s.CancelDelivery(s.Context(), s.change(), s.tenant.ID, id, nil)
	default:
		if to := s.endpoints[s.IntN(len(s.endpoints)-1)]; s.IntN(2) == 0 {
			r, err := s.createReplay(to, posthorn.ReplaySelection{States: posthorn.ReplayableStates()[s.IntN(4):]})
			s.ok(err)
			if r.State == posthorn.ReplayRunning {
				s.feedAll(r, 100)
			}
		}
	}
}

// bounds is written down here once more: the buckets are part of what users see.
var bounds = []time.Duration{10e6, 30e6, 100e6, 300e6, 1e9, 3e9, 10e9, 15e9, 30e9}

// compare counts the log again, by endpoint and hour.
func (s *statsWorld) compare() {
	until := s.now.Unix()/3600 + 2
	want := map[int64]map[int64]*store.Hour{} // by endpoint and hour
	at := func(endpoint int64, hour int64) *store.Hour {
		if want[endpoint] == nil {
			want[endpoint] = map[int64]*store.Hour{}
		}
		if want[endpoint][hour] == nil {
			want[endpoint][hour] = &store.Hour{}
		}
		return want[endpoint][hour]
	}
	ends := map[int64]map[posthorn.State]int{} // by endpoint
	counted := 0
	for p := (store.Page{Limit: 50}); ; {
		page, next, err := s.s.Deliveries(s.Context(), store.DeliveryFilter{Tenant: s.tenant.ID}, p)
		s.ok(err)
		for i := range page {
			d := &page[i]
			if s.kinds[d.ID] == posthorn.EventTest {
				continue
			}
			for j := range d.Attempts {
				a := &d.Attempts[j]
				if a.Class == posthorn.ClassLocal {
					continue
				}
				counted++
				h := at(d.Endpoint, a.At.Unix()/3600)
				b := 0
				for b < len(bounds) && a.Duration > bounds[b] {
					b++
				}
				h.Buckets[b]++
				if a.Succeeded() {
					h.OK++
				} else {
					h.Failed++
				}
			}
			if ends[d.Endpoint] == nil {
				ends[d.Endpoint] = map[posthorn.State]int{}
			}
			if state := d.Progress.Ended(); state.Final() {
				ends[d.Endpoint][state]++
			}
		}
		if p.Before = next; next == 0 {
			break
		}
	}
	if counted < 20 {
		s.Fatalf("only %d attempts were made: this shows nothing", counted)
	}
	all := store.Hour{}
	for _, e := range s.endpoints {
		slots, err := s.s.Stats(s.Context(), store.StatsFilter{Tenant: s.tenant.ID, Endpoint: e.ID, From: s.from, Until: until, Step: 1})
		s.ok(err)
		got := map[int64]*store.Hour{}
		for i := range slots {
			h := &slots[i].Hour
			all.Add(h)
			if h.Succeeded, h.Exhausted, h.Canceled, h.Expired = 0, 0, 0, 0; *h != (store.Hour{}) {
				got[slots[i].Start] = h
			}
		}
		n := ends[e.ID]
		s.counts(e, store.Hour{Succeeded: n[posthorn.Succeeded], Exhausted: n[posthorn.Failed], Canceled: n[posthorn.Canceled], Expired: n[posthorn.Expired]})
		if diff := cmp.Diff(fmtHours(want[e.ID]), fmtHours(got)); diff != "" {
			s.Errorf("endpoint %d, attempts (-recount +statistics):\n%s", e.ID, diff)
		}
	}
	slots, err := s.s.Stats(s.Context(), store.StatsFilter{Tenant: s.tenant.ID, Until: until, Step: until}) // of all time
	s.ok(err)
	if len(slots) != 1 || slots[0].Hour != all {
		s.Errorf("the tenant's statistics %+v, its endpoints' sum %+v", slots, all)
	}
}

func fmtHours(hours map[int64]*store.Hour) map[int64]string {
	text := map[int64]string{}
	for k, h := range hours {
		text[k] = fmt.Sprintf("%+v", *h)
	}
	return text
}
