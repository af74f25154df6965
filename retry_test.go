package posthorn_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/posthorn/posthorn"
)

var t0 = time.Date(2026, 4, 29, 9, 10, 0, 0, time.UTC)

func exact() posthorn.Policy {
	p := posthorn.DefaultPolicy()
	p.Jitter = 0
	return p
}

func TestDefaultScheduleIsTheDocumentedOne(t *testing.T) {
	p, now := posthorn.Progress{}, t0
	var offsets []string
	for range 10 {
		offsets = append(offsets, now.Sub(t0).String())
		p = step(t, exact(), p, posthorn.Input{Outcome: posthorn.ClassHTTPStatus, Now: now})
		now = p.NextAt
	}
	want := []string{"0s", "5s", "5m5s", "35m5s", "2h35m5s", "7h35m5s", "17h35m5s", "31h35m5s", "51h35m5s", "75h35m5s"}
	if diff := cmp.Diff(want, offsets); diff != "" {
		t.Errorf("times of the ten attempts (-want +got):\n%s", diff)
	}
	if p.State != posthorn.Failed || p.Attempts != 10 || !p.NextAt.IsZero() {
		t.Errorf("after the tenth attempt: %+v, want failed after 10 attempts with no next", p)
	}
}

// TestStepTable is exhaustive: every state, every move, every class of outcome.
func TestStepTable(t *testing.T) {
	states := []posthorn.State{posthorn.Pending, posthorn.Succeeded, posthorn.Failed, posthorn.Canceled, posthorn.Expired}
	for _, state := range states {
		for _, class := range posthorn.Classes() {
			want := state
			switch {
			case class == posthorn.ClassOK:
				want = posthorn.Succeeded // the receiver has it, whatever was decided meanwhile
			case state == posthorn.Pending && class == posthorn.ClassLocal:
				want = posthorn.Pending
			}
			got := step(t, exact(), posthorn.Progress{State: state}, posthorn.Input{Outcome: class, Now: t0})
			if got.State != want {
				t.Errorf("%v delivery, attempt %v: %v, want %v", state, class, got.State, want)
			}
			if got.Tries != 1 {
				t.Errorf("%v delivery, attempt %v: %d tries, want 1", state, class, got.Tries)
			}
			if attempts := got.Attempts; (attempts == 0) != (class == posthorn.ClassLocal) {
				t.Errorf("%v delivery, attempt %v: %d attempts", state, class, attempts)
			}
			if got.State.Final() != got.NextAt.IsZero() {
				t.Errorf("%v delivery, attempt %v: next attempt %v in state %v", state, class, got.NextAt, got.State)
			}
		}
		for _, m := range []struct {
			move posthorn.Move
			want posthorn.State
			open bool // allowed on a pending delivery
			done bool // allowed on a final one
		}{
			{posthorn.Cancel, posthorn.Canceled, true, false},
			{posthorn.Expire, posthorn.Expired, true, false},
			{posthorn.Retry, posthorn.Pending, true, true},
			{posthorn.Restart, posthorn.Pending, false, true},
		} {
			before := posthorn.Progress{State: state, Tries: 3, Attempts: 3, Waits: 2}
			got, err := exact().Step(before, posthorn.Input{Move: m.move, Now: t0})
			allowed := m.open && !state.Final() || m.done && state.Final()
			if allowed != (err == nil) {
				t.Errorf("%v delivery, move %d: error %v, allowed %v", state, m.move, err, allowed)
			}
			if !allowed {
				if got != before {
					t.Errorf("%v delivery, refused move %d changed it to %+v", state, m.move, got)
				}
			} else if got.State != m.want {
				t.Errorf("%v delivery, move %d: %v, want %v", state, m.move, got.State, m.want)
			}
		}
	}
}

func TestWhatEndsAnExtraAttemptPutsTheOldStateBack(t *testing.T) {
	for _, state := range []posthorn.State{posthorn.Succeeded, posthorn.Failed, posthorn.Canceled, posthorn.Expired} {
		p := posthorn.Progress{State: state, Tries: 10, Attempts: 10, Waits: 9}
		p = step(t, exact(), p, posthorn.Input{Move: posthorn.Retry, Now: t0})
		if p.State != posthorn.Pending || !p.NextAt.Equal(t0) {
			t.Fatalf("retry of a %v delivery: %+v, want pending, due now", state, p)
		}
		failed := step(t, exact(), p, posthorn.Input{Outcome: posthorn.ClassTimeout, Now: t0})
		if failed.State != state || failed.Extra {
			t.Errorf("failed extra attempt of a %v delivery: %+v", state, failed)
		}
		for _, move := range []posthorn.Move{posthorn.Cancel, posthorn.Expire} {
			if ended := step(t, exact(), p, posthorn.Input{Move: move, Now: t0}); ended.State != state || ended.Extra || ended.Manual || !ended.NextAt.IsZero() {
				t.Errorf("move %d of an extra attempt of a %v delivery: %+v", move, state, ended)
			}
		}
		if p.Ended() != state || failed.Ended() != state {
			t.Errorf("an extra attempt of a %v delivery counts as %v, and as %v when it failed", state, p.Ended(), failed.Ended())
		}
		// A fault of our own must not use the extra attempt up.
		local := step(t, exact(), p, posthorn.Input{Outcome: posthorn.ClassLocal, Now: t0})
		if local.State != posthorn.Pending || !local.Extra || local.Before != state {
			t.Errorf("local fault during the extra attempt of a %v delivery: %+v", state, local)
		}
	}
}

func TestReplayStartsTheScheduleAnew(t *testing.T) {
	p := posthorn.Progress{State: posthorn.Failed, Tries: 10, Attempts: 10, Waits: 9}
	p = step(t, exact(), p, posthorn.Input{Move: posthorn.Restart, Now: t0})
	p = step(t, exact(), p, posthorn.Input{Outcome: posthorn.ClassConnect, Now: t0})
	if p.State != posthorn.Pending || p.Round != 1 || p.NextAt.Sub(t0) != 5*time.Second {
		t.Errorf("first failure after a replay: %+v, want pending again in 5 s, round 1", p)
	}
}

func TestRetryAfterNeverShortensAndIsCapped(t *testing.T) {
	for _, c := range []struct{ asked, want time.Duration }{
		{0, 5 * time.Minute},
		{time.Second, 5 * time.Minute},
		{time.Hour, time.Hour},
		{1000 * time.Hour, 24 * time.Hour},
		{-time.Hour, 5 * time.Minute},
	} {
		p := step(t, exact(), posthorn.Progress{Waits: 1}, posthorn.Input{Outcome: posthorn.ClassHTTPStatus, RetryAfter: c.asked, Now: t0})
		if got := p.NextAt.Sub(t0); got != c.want {
			t.Errorf("Retry-After %v: next attempt in %v, want %v", c.asked, got, c.want)
		}
	}
}

func TestLocalFaultsUseNoWait(t *testing.T) {
	p := posthorn.Progress{Waits: 4, Attempts: 4, Tries: 4}
	for i := range 100 {
		p = step(t, exact(), p, posthorn.Input{Outcome: posthorn.ClassLocal, Now: t0})
		if p.Waits != 4 || p.Attempts != 4 || p.Tries != 5+i || p.NextAt.Sub(t0) != posthorn.DefaultLocalRetry {
			t.Fatalf("after %d local faults: %+v", i+1, p)
		}
	}
}

func TestEndpointsOwnSchedule(t *testing.T) {
	pol := exact().For(posthorn.Settings{RetrySchedule: []int{7}})
	p := step(t, pol, posthorn.Progress{}, posthorn.Input{Outcome: posthorn.ClassReset, Now: t0})
	if p.NextAt.Sub(t0) != 7*time.Second {
		t.Errorf("first wait %v, want 7s", p.NextAt.Sub(t0))
	}
	if p = step(t, pol, p, posthorn.Input{Outcome: posthorn.ClassReset, Now: t0}); p.State != posthorn.Failed {
		t.Errorf("after the last wait: %v, want failed", p.State)
	}
}

// FuzzStep: any sequence of moves keeps the machine's promises.
func FuzzStep(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7}, uint64(1))
	f.Add(slices.Repeat([]byte{1}, 40), uint64(2))
	f.Fuzz(func(t *testing.T, moves []byte, seed uint64) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		pol, p, now := posthorn.DefaultPolicy(), posthorn.Progress{}, t0
		classes := posthorn.Classes()
		failures := 0 // in this round, by the machine's own schedule
		for _, b := range moves {
			in := posthorn.Input{Move: posthorn.Move(b % 5), Outcome: classes[int(b/5)%len(classes)], Now: now, Random: rnd.Float64()*2 - 1}
			before := p
			var err error
			if p, err = pol.Step(p, in); err != nil {
				if p != before {
					t.Fatalf("refused move changed %+v to %+v", before, p)
				}
				continue
			}
			if p.State.Final() == !p.NextAt.IsZero() && p.State.Final() {
				t.Fatalf("final state %v with a next attempt", p.State)
			}
			if p.State == posthorn.Pending && in.Move == posthorn.Attempted && in.Outcome != posthorn.ClassLocal && !before.State.Final() {
				wait := pol.Schedule[before.Waits]
				if got := p.NextAt.Sub(now); got < wait*8/10 || got > wait*12/10+1 {
					t.Fatalf("wait %d lasts %v, want %v ±20 %%", before.Waits, got, wait)
				}
				failures++
			}
			if in.Move == posthorn.Restart {
				failures = 0
			}
			if failures > len(pol.Schedule) {
				t.Fatalf("%d failures in one round and still pending", failures)
			}
			if p.NextAt.After(now) {
				now = p.NextAt
			}
		}
	})
}

func step(t *testing.T, pol posthorn.Policy, p posthorn.Progress, in posthorn.Input) posthorn.Progress {
	t.Helper()
	p, err := pol.Step(p, in)
	if err != nil {
		t.Fatalf("Step(%+v): %v", in, err)
	}
	return p
}
