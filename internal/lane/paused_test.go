package lane

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// waits makes deliveries that have failed once and wait for hours.
func (m *memory) waits(e *Engine, r *receiver, n int) (list []posthorn.ID) {
	r.set(broken)
	for range n {
		list = append(list, m.publish(e, 1, time.Time{}))
		wait(time.Second)
	}
	r.set(ok)
	return list
}

func (r *receiver) set(answer func(*store.Work) posthorn.Attempt) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = answer
}

// What a user asks for now of a paused endpoint is made at once; what else waits
// there waits, and follows the resume in its order.
func TestAPausedEndpointIsSentWhatIsAskedForByHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := newMemory(t), newReceiver(t, ok)
		m.endpoint(1, posthorn.Settings{MaxInFlight: 1}, 1)
		e := start(t, m, r, Config{})
		done := m.publish(e, 1, time.Time{})
		wait(time.Second)
		failed := m.waits(e, r, 1)[0]
		m.change(1, pauseIt)
		var held []posthorn.ID
		for range 20 {
			held = append(held, m.publish(e, 1, time.Time{}))
		}
		wait(time.Second)
		before := len(r.seen(1))
		asked := time.Now()
		want := []posthorn.ID{m.test(e, 1), done, failed, held[7]}
		for _, id := range want[1:] {
			m.retry(e, id)
		}
		wait(time.Second)
		got := r.seen(1)[before:]
		if list := slices.Sorted(slices.Values(ids(got))); !slices.Equal(list, slices.Sorted(slices.Values(want))) {
			t.Errorf("attempted %v, want %v", list, want)
		}
		for _, q := range got {
			if d := q.at.Sub(asked); d > 50*time.Millisecond {
				t.Errorf("%d was attempted after %s", q.id, d)
			}
		}
		wait(24 * time.Hour)
		if n := len(r.seen(1)); n != before+len(want) {
			t.Errorf("%d attempts while it is paused", n-before)
		}
		m.change(1, resumeIt)
		wait(time.Minute)
		rest := slices.Delete(slices.Clone(held), 7, 8)
		if got := ids(r.seen(1)[before+len(want):]); !slices.Equal(got, rest) {
			t.Errorf("after the resume %v, want %v", got, rest)
		}
	})
}

// A failure of an attempt by hand changes no final state, and an open delivery goes on
// as one that is held.
func TestAnAttemptByHandThatFailsAtAPausedEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := newMemory(t), newReceiver(t, ok)
		m.endpoint(1, posthorn.Settings{}, 1)
		e := start(t, m, r, Config{})
		done := m.publish(e, 1, time.Time{})
		wait(time.Second)
		open := m.waits(e, r, 1)[0]
		r.set(broken)
		m.change(1, pauseIt)
		before := len(r.seen(1))
		test := m.test(e, 1)
		m.retry(e, done)
		m.retry(e, open)
		wait(100 * time.Hour)
		if got := r.seen(1)[before:]; len(got) != 3 {
			t.Errorf("attempted %v", ids(got))
		}
		if p := m.row(done).work.Progress; p.State != posthorn.Succeeded {
			t.Errorf("the finished one: %+v", p)
		}
		if p := m.row(test).work.Progress; p.State != posthorn.Failed || m.row(test).tries[0].Manual {
			t.Errorf("the test: %+v", p)
		}
		if x := m.row(open); x.place != "parked" || x.work.Progress.Manual || x.work.Progress.Waits != 2 {
			t.Errorf("the open one: %+v", x)
		}
	})
}

// A test is made at once whatever its lane is about.
func TestATestWaitsForNothing(t *testing.T) {
	for what, prepare := range map[string]func(m *memory, r *receiver, e *Engine){
		"not loaded": func(*memory, *receiver, *Engine) {},
		"backlog": func(m *memory, r *receiver, e *Engine) {
			r.set(func(*store.Work) posthorn.Attempt { wait(time.Second); return ok(nil) })
			for range 100 {
				m.publish(e, 1, time.Time{})
			}
		},
		"breaker": func(m *memory, r *receiver, e *Engine) {
			r.set(broken)
			for range 20 {
				m.publish(e, 1, time.Time{})
			}
			wait(2 * time.Hour)
		},
		"hold": func(m *memory, r *receiver, e *Engine) {
			r.set(func(*store.Work) posthorn.Attempt {
				return posthorn.Attempt{Class: posthorn.ClassHTTPStatus, Status: 503, RetryAfter: time.Hour}
			})
			m.publish(e, 1, time.Time{})
			wait(time.Second)
		},
		"paused": func(m *memory, r *receiver, e *Engine) {
			for range 20 {
				m.publish(e, 1, time.Time{})
			}
			m.change(1, pauseIt)
			wait(time.Second)
		},
		"a line that waits": func(m *memory, r *receiver, e *Engine) {
			m.settings(1, ordered)
			r.set(broken)
			for range 20 {
				m.publish(e, 1, time.Time{})
			}
			wait(time.Hour)
		},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, r := newMemory(t), newReceiver(t, ok)
				m.endpoint(1, posthorn.Settings{}, 1)
				e := start(t, m, r, Config{QueuePerLane: 4})
				prepare(m, r, e)
				before, asked := e.Snapshot(1), time.Now()
				id := m.test(e, 1)
				wait(2 * time.Second)
				i := slices.IndexFunc(r.seen(1), func(q request) bool { return q.id == id })
				if i < 0 {
					t.Fatal("it was not made")
				}
				if d := r.seen(1)[i].at.Sub(asked); d > 20*time.Millisecond {
					t.Errorf("it was made after %s", d)
				}
				if s := e.Snapshot(1); s.BreakerOpen != before.BreakerOpen || s.NextProbe != before.NextProbe || s.HoldUntil != before.HoldUntil {
					t.Errorf("the lane's pace is %+v, was %+v", s, before)
				}
				if n := m.row(id); len(n.tries) != 1 || n.place != "done" {
					t.Errorf("made %d times, %s", len(n.tries), n.place)
				}
			})
		})
	}
}

// More than fits in memory is asked for by hand of a paused endpoint that is slow: it
// is all made, without the resume, within max_in_flight and the bound of memory.
func TestManyAskedForByHandOfAPausedEndpoint(t *testing.T) {
	for _, settings := range []posthorn.Settings{{MaxInFlight: 2}, {Ordered: true, MaxInFlight: 2}} {
		for _, shared := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				m, r := newMemory(t), newReceiver(t, ok)
				m.shared = shared
				m.endpoint(1, posthorn.Settings{}, 1)
				e := start(t, m, r, Config{})
				var done []posthorn.ID
				for range 4 * maxManual {
					done = append(done, m.publish(e, 1, time.Time{}))
				}
				wait(time.Minute)
				m.settings(1, settings)
				m.change(1, pauseIt)
				for range 10 {
					m.publish(e, 1, time.Time{})
				}
				wait(time.Second)
				r.set(func(*store.Work) posthorn.Attempt { wait(100 * time.Millisecond); return ok(nil) })
				before := len(r.seen(1))
				for _, id := range done {
					m.retry(e, id)
				}
				tests := 0
				for range 20 {
					m.test(e, 1)
					tests++
					if n := e.Snapshot(1).Queued; n > maxManual+2 {
						t.Fatalf("%d in memory", n)
					}
					wait(500 * time.Millisecond)
				}
				wait(time.Minute)
				if n := len(r.seen(1)) - before; n != len(done)+tests || m.places()["parked"] != 10 {
					t.Errorf("%d of %d were made; %v", n, len(done)+tests, m.places())
				}
			})
		}
	}
}

// Of a paused endpoint's line the head is made if a user asks for it, and no other
// before it is final.
func TestTheHeadOfAPausedLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := newMemory(t), newReceiver(t, broken)
		keepsLine(m, r)
		m.endpoint(1, ordered, 1)
		e := start(t, m, r, Config{})
		var line []posthorn.ID
		for range 5 {
			line = append(line, m.publish(e, 1, time.Time{}))
		}
		wait(time.Second)
		m.change(1, pauseIt)
		wait(time.Second)
		before := len(r.seen(1))
		made := func(what string, want ...posthorn.ID) {
			t.Helper()
			wait(time.Hour)
			got := ids(r.seen(1)[before:])
			if before += len(got); !slices.Equal(got, want) {
				t.Errorf("%s: attempted %v, want %v", what, got, want)
			}
		}
		m.retry(e, line[2])
		made("the third is asked for")
		m.retry(e, line[0])
		made("the head is asked for, and fails", line[0])
		m.retry(e, line[1])
		r.set(ok)
		m.retry(e, line[0])
		made("all to the third are asked for", line[0], line[1], line[2])
		m.retry(e, line[4])
		made("the fifth is asked for")
		m.change(1, resumeIt)
		made("the resume", line[3], line[4])
	})
}

// An attempt by hand that is under way when the endpoint is paused, and one of the
// line, end; what was asked for by hand behind them is made.
func TestAPauseWhileAttemptsAreMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := newMemory(t), newReceiver(t, func(*store.Work) posthorn.Attempt { wait(10 * time.Second); return ok(nil) })
		keepsLine(m, r)
		m.endpoint(1, ordered, 1)
		e := start(t, m, r, Config{})
		var line []posthorn.ID
		for range 3 {
			line = append(line, m.publish(e, 1, time.Time{}))
		}
		wait(time.Second)
		m.change(1, pauseIt)
		wait(time.Second)
		m.retry(e, line[1])
		wait(time.Second)
		if got := ids(r.seen(1)); !slices.Equal(got, line[:1]) {
			t.Errorf("while the first is under way: %v", got)
		}
		wait(time.Hour)
		if got := ids(r.seen(1)); !slices.Equal(got, line[:2]) {
			t.Errorf("in the end: %v", got)
		}
	})
}

// What a node that stops had not made of a paused endpoint, the next start makes.
func TestATestOutlivesARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := newMemory(t), newReceiver(t, ok)
		m.endpoint(1, posthorn.Settings{}, 1)
		e := start(t, m, r, Config{})
		m.change(1, pauseIt)
		m.setSending(false)
		test := m.test(e, 1)
		held := m.publish(e, 1, time.Time{})
		wait(time.Second)
		if err := e.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		late := m.test(e, 1) // to the engine that has stopped
		if n := len(m.places()); n == 0 || m.row(test).place != "parked" || m.row(late).place != "owned" {
			t.Fatalf("%v", m.places())
		}
		m.setSending(true)
		m.reopen()
		start(t, m, r, Config{})
		wait(time.Minute)
		if got := slices.Sorted(slices.Values(ids(r.seen(1)))); !slices.Equal(got, []posthorn.ID{test, late}) {
			t.Errorf("attempted %v of %d, %d and %d", got, test, held, late)
		}
	})
}

// A result of a test that cannot be written is written later, as every result.
func TestTheResultOfATestIsRecordedLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := newMemory(t), newReceiver(t, ok)
		m.endpoint(1, posthorn.Settings{}, 1)
		e := start(t, m, r, Config{})
		m.mu.Lock()
		m.fail = true
		m.mu.Unlock()
		id := m.test(e, 1)
		wait(time.Minute)
		m.mu.Lock()
		m.fail = false
		m.mu.Unlock()
		wait(time.Minute)
		if x := m.row(id); x.place != "done" || len(x.tries) != 1 || len(r.seen(1)) != 1 {
			t.Errorf("%+v after %d requests", x, len(r.seen(1)))
		}
	})
}

// A node hears of a pause and of the resume later than its store knows: it sends by
// neither before, keeps the order, and does not ask in vain all the time.
func TestANodeThatHearsLateOfAPauseAndAResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := newMemory(t), newReceiver(t, ok)
		m.endpoint(1, posthorn.Settings{MaxInFlight: 1}, 1)
		e := start(t, m, r, Config{QueuePerLane: 4, QueueBurst: 4})
		m.publish(e, 1, time.Time{})
		wait(time.Second)
		tell := func(kind store.NoticeKind) { m.watch(store.Notice{Kind: kind, Tenant: 1, Endpoint: 1}) }
		silently := func(status posthorn.EndpointStatus) {
			m.mu.Lock()
			defer m.mu.Unlock()
			target := *m.targets[1]
			target.Endpoint.Status = status
			m.targets[1] = &target
		}
		r.set(func(*store.Work) posthorn.Attempt { wait(100 * time.Millisecond); return ok(nil) })
		for range 20 {
			m.publish(e, 1, time.Time{})
		}
		silently(posthorn.StatusPaused)
		wait(10 * time.Second) // what is in memory is sent
		sent := len(r.seen(1))
		if s := e.Snapshot(1); sent > 8 || !s.Backlogged {
			t.Errorf("%d attempts, the lane is %+v", sent, s)
		}
		tell(store.NoticeEndpoint)
		wait(time.Second)
		silently(posthorn.StatusActive)
		tell(store.NoticeParked)
		m.publish(e, 1, time.Time{})
		wait(10 * time.Second)
		if n := len(r.seen(1)); n != sent {
			t.Errorf("%d attempts before the resume was heard of", n-sent)
		}
		m.mu.Lock()
		claims := m.claims
		m.mu.Unlock()
		if claims > 10 {
			t.Errorf("what is parked was asked for %d times", claims)
		}
		tell(store.NoticeEndpoint)
		wait(time.Minute)
		if got := ids(r.seen(1)); len(got) != 22 || !slices.IsSorted(got) {
			t.Errorf("in the end %v", got)
		}
	})
}
