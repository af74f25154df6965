package sim

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/posthorn/posthorn"
)

// counts are how often each fault and each transition occurred, in all worlds
// of this process.
var counts = struct {
	mu sync.Mutex
	of map[string]int
}{of: map[string]int{}}

func count(format string, args ...any) { countN(1, format, args...) }

func countN(n int, format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	counts.mu.Lock()
	defer counts.mu.Unlock()
	counts.of[what] += n
}

// countTable is all that was counted, a line each.
func countTable() string {
	counts.mu.Lock()
	defer counts.mu.Unlock()
	var b strings.Builder
	for _, what := range slices.Sorted(maps.Keys(counts.of)) {
		fmt.Fprintf(&b, "%10d  %s\n", counts.of[what], what)
	}
	return b.String()
}

// transitions counts how deliveries came to where they stand.
func (h *history) transitions() {
	visits := map[posthorn.ID][]*visit{}
	for _, v := range h.visits {
		id, _ := posthorn.ParseID(posthorn.DeliveryPrefix, v.header.Get("posthorn-delivery"))
		visits[id] = append(visits[id], v)
	}
	local := map[string]int{}
	for _, f := range h.events {
		for id, e := range f.targets {
			h.transition(local, f, h.lives[e], id, visits[id])
		}
	}
	for what, n := range local {
		countN(n, "%s", what)
	}
}

func (h *history) transition(count map[string]int, f *fact, l *life, id posthorn.ID, visits []*visit) {
	d, ok := h.final[id]
	if !ok {
		return
	}
	state, sent := d.Progress.State, len(visits) > 0
	if state.Final() {
		count["transition: pending -> "+state.String()]++
	}
	if d.Progress.Tries > d.Progress.Attempts {
		count["transition: pending -> pending (local fault)"]++
	}
	if d.Progress.Attempts > 1 {
		count["transition: pending -> pending (retry)"]++
	}
	for _, whom := range []string{ofEndpoint(l.id), ofTenant(l.tenant), everybody} {
		for _, s := range h.quiets[whom] {
			last := f.at
			for _, v := range visits { // open before the span's end, sent after it
				if !last.After(s.to) && !v.at.Before(s.to) && !s.to.IsZero() {
					count["transition: held -> sent ("+strings.Fields(whom)[0]+")"]++
				}
				last = v.at
			}
		}
	}
	if state == posthorn.Succeeded && !l.deletedAt.IsZero() && visits[len(visits)-1].ended.After(l.deletedAt) {
		count["transition: canceled -> succeeded (under way)"]++
	}
	if state == posthorn.Expired {
		count["transition: new -> expired ("+string(d.Reason)+")"]++
	}
	if state == posthorn.Canceled && sent {
		count["transition: waiting -> canceled"]++
	}
	for i := 1; i < len(visits); i++ {
		if visits[i].header.Get("posthorn-attempt") == visits[i-1].header.Get("posthorn-attempt") {
			count["transition: attempt repeated after a process ended"]++
		}
	}
	if f.delayed && sent {
		count["transition: waiting -> sent (deliver_at)"]++
	}
}

// expected is what must have occurred in a run of enough worlds.
func expected() (all []string) {
	for _, d := range deeds {
		all = append(all, "step: "+string(d.do))
	}
	for _, m := range moods {
		all = append(all, "receiver: "+string(m))
	}
	for _, c := range faultable {
		all = append(all, fmt.Sprintf("fault: the store's %s fails", c))
	}
	for _, c := range []call{callPublish, callRecord, callPark} {
		all = append(all, fmt.Sprintf("fault: the store's %s fails after its commit", c))
	}
	for _, p := range points {
		all = append(all, "fault: crash "+string(p))
	}
	for _, c := range []posthorn.Class{
		posthorn.ClassOK, posthorn.ClassHTTPStatus, posthorn.ClassRedirect, posthorn.ClassTimeout,
		posthorn.ClassConnect, posthorn.ClassReset, posthorn.ClassProtocol, posthorn.ClassLocal,
	} {
		all = append(all, "class: "+c.String())
	}
	return append(all,
		"fault: the clock steps back", "fault: the clock steps forward",
		"answer: 202", "answer: 403, the tenant is suspended", "answer: 409, the id is known with other content",
		"answer: 503 with Retry-After", "answer: none, the process crashed",
		"transition: pending -> succeeded", "transition: pending -> failed", "transition: pending -> canceled",
		"transition: pending -> expired", "transition: pending -> held", "transition: held -> expired (retention)",
		"transition: held -> sent (endpoint)", "transition: held -> sent (tenant)", "transition: held -> sent (everybody)",
		"transition: new -> expired (backlog_full)", "transition: pending -> pending (retry)",
		"transition: pending -> pending (local fault)", "transition: canceled -> succeeded (under way)",
		"transition: waiting -> canceled", "transition: waiting -> sent (deliver_at)",
		"transition: attempt repeated after a process ended",
	)
}
