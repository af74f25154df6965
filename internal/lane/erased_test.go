package lane

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

func TestNothingIsSentOfAnErasedPayload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := newMemory(t), newReceiver(t, func(*store.Work) posthorn.Attempt {
			wait(time.Second)
			return ok(nil)
		})
		m.endpoint(1, posthorn.Settings{MaxInFlight: 1}, 1)
		e := start(t, m, r, Config{})
		var sent []posthorn.ID
		for range 4 {
			sent = append(sent, m.publish(e, 1, time.Time{}))
		}
		wait(500 * time.Millisecond) // the first is in flight, the others are in memory
		m.watch(store.Notice{Kind: store.NoticeErased, Event: sent[1]})
		m.watch(store.Notice{Kind: store.NoticeErased, Event: sent[3]})
		wait(time.Minute)
		if got := ids(r.seen(1)); !slices.Equal(got, []posthorn.ID{sent[0], sent[2]}) {
			t.Errorf("sent %v of %v", got, sent)
		}
		if s := e.Stats(); s.InFlight != 0 || s.Queued != 0 {
			t.Errorf("something is left: %+v", s)
		}
	})
}

func TestErasedEventsAreForgottenInTheirOrder(t *testing.T) {
	var s erased
	if s.has(1) {
		t.Error("nothing was erased")
	}
	for id := range posthorn.ID(keptErased + 5) {
		s.add(id)
		s.add(id)
	}
	for id := range posthorn.ID(keptErased + 5) {
		if s.has(id) != (id >= 5) {
			t.Fatalf("event %d of %d: %v", id, keptErased+5, s.has(id))
		}
	}
	if len(s.set) != keptErased {
		t.Errorf("%d are kept", len(s.set))
	}
}
