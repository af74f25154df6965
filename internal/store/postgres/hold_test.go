package postgres_test

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/postgres"
	"github.com/posthorn/posthorn/internal/store/postgres/ill"
	"github.com/posthorn/posthorn/internal/store/postgres/pgtest"
	"github.com/posthorn/posthorn/internal/tally"
)

const nobody = "whatever answers come late or never, no row belongs to a node that does not hold it"

// never is for [postgres.Options.Compare].
const never = -1

// quick are deadlines of tests.
var quick = postgres.Deadlines{Look: slower * 500 * time.Millisecond, Write: slower * time.Second, Walk: slower * time.Second}

// illNode is a node behind a wire, whose memory is not compared with its rows.
func (c *cluster) illNode(t *testing.T, change ...func(*postgres.Options)) (*postgres.Store, *ill.Wire) {
	c.Helper()
	w := ill.New(t, socket(t))
	o := postgres.Options{URL: w.URL(pgtest.Name(c.url)), Lease: lease, Log: logger(), Compare: never}
	for _, f := range change {
		f(&o)
	}
	return open(c, o), w
}

// struck waits until a fault has happened.
func struck(t *testing.T, s *ill.Strike) {
	t.Helper()
	select {
	case <-s.Struck():
	case <-time.After(30 * time.Second):
		t.Fatal("the fault did not happen")
	}
}

// noneUnheld fails when the comparison found something.
func noneUnheld(t *testing.T, stores ...*postgres.Store) {
	t.Helper()
	for i, s := range stores {
		if _, unheld := s.Holdings(); unheld != 0 {
			t.Errorf("node %d found %d rows that nobody held", i, unheld)
		}
	}
}

// TestALateAnswerLeavesNothingToNobody is the story of two nodes whose groups of
// results are committed, with an answer that comes when this node's own scan has
// taken the rows again.
func TestALateAnswerLeavesNothingToNobody(t *testing.T) {
	t.Parallel()
	const n = 128
	fleetOf := func(t *testing.T, blind bool, compare time.Duration) (f *fleet, round func() time.Duration) {
		var wires []*ill.Wire
		f = newFleetOf(t, 2, func(f *fleet, o *postgres.Options) {
			w := ill.New(t, socket(t))
			wires = append(wires, w)
			o.URL, o.Compare = w.URL(pgtest.Name(f.url)), compare
			// What is taken again waits behind the rest until the late answer has come.
			f.atOnce, f.takes = 4, 100*time.Millisecond
		})
		// The first attempts of every third; not so many that the breaker opens.
		var sent atomic.Int64
		f.fails = func(posthorn.ID) bool { return sent.Add(1)%3 == 0 }
		if blind {
			for _, s := range f.stores {
				s.Blind()
			}
		}
		want := 0
		return f, func() time.Duration {
			t.Helper()
			var strikes []*ill.Strike
			for _, w := range wires {
				for i := range 4 {
					strikes = append(strikes, w.Strike(ill.Fault{Statement: "COMMIT", Within: "WITH gone AS", Purpose: "posthorn hot", Nth: i + 1, At: ill.Answer, Do: ill.Delay, For: 500 * time.Millisecond}))
				}
			}
			for i := range n {
				f.send(i % 2)
			}
			for _, s := range strikes {
				struck(t, s)
			}
			want += n
			return f.eventually("all are delivered", func() bool {
				f.mu.Lock()
				defer f.mu.Unlock()
				return f.succeeded >= want
			})
		}
	}
	t.Run("by the generations alone", func(t *testing.T) {
		t.Parallel()
		f, round := fleetOf(t, false, never)
		round()
		for i, s := range f.stores {
			f.eventually("nothing is held", func() bool { held, _ := s.Holdings(); return held == 0 })
			if _, unheld := s.Holdings(); unheld != 0 {
				t.Errorf("node %d: %d unheld", i, unheld)
			}
		}
		tally.Count(t, nobody, n)
	})
	t.Run("by the comparison alone", func(t *testing.T) {
		t.Parallel()
		f, round := fleetOf(t, true, 500*time.Millisecond)
		// On a busy machine the scan may come after all late answers.
		for range 20 {
			if took := round(); took > 15*time.Second {
				t.Errorf("that took %v", took)
			}
			for _, s := range f.stores {
				if _, unheld := s.Holdings(); unheld > 0 {
					return
				}
			}
		}
		t.Error("nothing was found that nobody held: nothing is shown")
	})
}

// Each statement that gives a row up is answered when the row was taken again.
func TestALateAnswerRemovesNoNewerHold(t *testing.T) {
	t.Parallel()
	c := newCluster(t, database(t))
	s, w := c.illNode(t)
	due := func() store.Work {
		t.Helper()
		var work []store.Work
		c.eventually("it is taken again", func() bool {
			work = c.claim(s)
			return len(work) == 1
		})
		return work[0]
	}
	hold := func(id posthorn.ID, gen uint64) store.Hold { return store.Hold{ID: id, Gen: gen} }
	publish := func() store.Hold {
		t.Helper()
		got, err := s.Publish(t.Context(), c.publication(s, ""))
		if err != nil {
			t.Fatal(err)
		}
		return hold(got[0].ID+1, got[0].Gen)
	}
	// late runs call with its commit's answer held until the row was taken again.
	late := func(within string, call func() error, again func() store.Work) (newer store.Work) {
		t.Helper()
		strike := w.Strike(ill.Fault{Statement: "COMMIT", Within: within, At: ill.Answer, Do: ill.Hold})
		ended := make(chan error, 1)
		go func() { ended <- call() }()
		struck(t, strike)
		newer = again()
		strike.Release()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		return newer
	}
	finish := func(t *testing.T, newer store.Work) {
		t.Helper()
		if !s.MayAttempt(t.Context(), newer.Hold()) {
			t.Error("what was taken again is not held any more")
		}
		if rec, err := record(s, c.resultOf(newer, posthorn.ClassOK)); err != nil || rec.Lost {
			t.Errorf("its result: %+v, %v", rec, err)
		}
		if held, _ := s.Holdings(); held != 0 {
			t.Errorf("%d are held in the end", held)
		}
	}
	again := func(h store.Hold) func() error {
		return func() error {
			r := c.result(h.ID, posthorn.ClassHTTPStatus)
			r.Gen, r.Policy.Schedule = h.Gen, []time.Duration{0, 0, 0}
			_, err := record(s, r)
			return err
		}
	}
	t.Run("a result", func(t *testing.T) {
		h := publish()
		finish(t, late("WITH gone AS", again(h), due))
	})
	t.Run("a result that is lost", func(t *testing.T) {
		h := publish()
		if err := again(h)(); err != nil {
			t.Fatal(err)
		}
		newer := due()
		r := c.result(h.ID, posthorn.ClassHTTPStatus)
		r.Gen = h.Gen
		if rec, err := record(s, r); err != nil || !rec.Lost {
			t.Fatalf("%+v, %v", rec, err)
		}
		finish(t, newer)
	})
	t.Run("a retry by hand", func(t *testing.T) {
		h := publish()
		finish(t, late("manual = true", func() error {
			_, err := s.Retry(t.Context(), store.Change{Actor: "test", At: time.Now()}, store.RetryOrder{Tenant: c.tenant.ID, Delivery: h.ID, Held: []store.Hold{h}}, nil)
			return err
		}, due))
	})
	t.Run("giving back", func(t *testing.T) {
		h := publish()
		finish(t, late("SET run = -1", func() error { return s.Park(t.Context(), []store.Hold{h}) }, func() store.Work {
			t.Helper()
			work, _, _, err := s.ClaimParked(t.Context(), c.to.ID, 10)
			if err != nil || len(work) != 1 {
				t.Fatal(work, err)
			}
			return work[0]
		}))
	})
	noneUnheld(t, s)
	tally.Count(t, nobody, 4)
}

// What gives a row up by a hold of a former run does nothing to the row that the node
// has taken again since.
func TestAFormerHoldGivesUpNothing(t *testing.T) {
	t.Parallel()
	c := newCluster(t, database(t))
	s, _ := c.illNode(t)
	got, err := s.Publish(t.Context(), c.publication(s, ""))
	if err != nil {
		t.Fatal(err)
	}
	former := store.Hold{ID: got[0].ID + 1, Gen: got[0].Gen}
	pgtest.Exec(t, c.url, `UPDATE posthorn.runs SET taken_at = 1`)
	var work []store.Work
	c.eventually("the node has a new run and takes it again", func() bool {
		var err error
		work, _, err = s.ClaimDue(t.Context(), time.Now(), 10)
		return err == nil && len(work) == 1
	})
	newer := work[0].Hold()
	if s.MayAttempt(t.Context(), former) {
		t.Error("the former hold may be attempted")
	}
	if err := s.Park(t.Context(), []store.Hold{former}); err != nil {
		t.Fatal(err)
	}
	_, err = s.Retry(t.Context(), store.Change{Actor: "test", At: time.Now()}, store.RetryOrder{Tenant: c.tenant.ID, Delivery: former.ID, Held: []store.Hold{former}}, nil)
	if !errors.Is(err, store.ErrInFlight) {
		t.Errorf("a retry by the former hold: %v", err)
	}
	r := c.result(former.ID, posthorn.ClassHTTPStatus)
	r.Gen = former.Gen
	if rec, err := record(s, r); err != nil || !rec.Lost {
		t.Errorf("a result by the former hold: %+v, %v", rec, err)
	}
	if !s.MayAttempt(t.Context(), newer) {
		t.Error("the newer hold is gone")
	}
	if lost, err := s.Unheld(t.Context()); err != nil || len(lost) > 0 {
		t.Errorf("%v belong to nobody, %v", lost, err)
	}
	if rec, err := record(s, c.resultOf(work[0], posthorn.ClassOK)); err != nil || rec.Lost {
		t.Errorf("a result by the newer one: %+v, %v", rec, err)
	}
	tally.Count(t, nobody, 1)
}

// Whoever takes rows over and hears nothing of it gives them back.
func TestWhatNobodyWaitedForIsDueAgain(t *testing.T) {
	t.Parallel()
	c := newCluster(t, database(t))
	s, w := c.illNode(t, func(o *postgres.Options) { o.Deadlines = quick })
	other := c.node(c.url)
	set := c.publication(other)
	publish := func(on *postgres.Store, key string, at time.Time) ([]store.Accepted, error) {
		p := set
		p.At, p.Events = time.Now(), []store.NewEvent{c.event(key)}
		p.Events[0].DeliverAt = at
		return on.Publish(t.Context(), p)
	}
	if _, err := publish(s, "first", time.Time{}); err != nil { // prepares the statements
		t.Fatal(err)
	}
	claimed := func() (ids []posthorn.ID) {
		c.eventually("it is due again", func() bool {
			for _, d := range c.claim(other) {
				ids = append(ids, d.ID)
			}
			return len(ids) > 0
		})
		return ids
	}
	cases := 0
	for _, act := range []ill.Act{ill.Silence, ill.Hold} {
		fault := func(f ill.Fault) (release func()) {
			f.At, f.Do = ill.Answer, act
			strike := w.Strike(f)
			return func() {
				struck(t, strike)
				strike.Release()
			}
		}
		t.Run("publish", func(t *testing.T) {
			cases++
			release := fault(ill.Fault{Statement: "INSERT INTO events", Purpose: "posthorn hot"})
			began := time.Now()
			if _, err := publish(s, "lost", time.Time{}); !errors.Is(err, store.ErrUnsettled) {
				t.Errorf("published with %v", err)
			}
			if took := time.Since(began); took > 10*quick.Write {
				t.Errorf("that took %v", took)
			}
			e, err := other.EventByRef(t.Context(), c.tenant.ID, "lost")
			if err != nil {
				t.Fatal(err)
			}
			if ids := claimed(); len(ids) != 1 || ids[0] != e.ID+1 {
				t.Errorf("claimed %v, want %v", ids, e.ID+1)
			}
			release()
			pgtest.Exec(t, c.url, `DELETE FROM posthorn.due; `)
			pgtest.Exec(t, c.url, `DELETE FROM posthorn.idempotency`)
			pgtest.Exec(t, c.url, `DELETE FROM posthorn.events`)
		})
		t.Run("claim", func(t *testing.T) {
			cases++
			a, err := publish(other, "", time.Now().Add(2*time.Millisecond))
			if err != nil {
				t.Fatal(err)
			}
			release := fault(ill.Fault{Statement: "COMMIT", Within: "UPDATE due d SET run = CASE"})
			c.eventually("a claim fails", func() bool {
				_, _, err := s.ClaimDue(t.Context(), time.Now(), 10)
				return errors.Is(err, store.ErrUnavailable)
			})
			if ids := claimed(); len(ids) != 1 || ids[0] != a[0].ID+1 {
				t.Errorf("claimed %v, want %v", ids, a[0].ID+1)
			}
			release()
			pgtest.Exec(t, c.url, `DELETE FROM posthorn.due`)
		})
		t.Run("retry by hand", func(t *testing.T) {
			cases++
			a, err := publish(s, "", time.Time{})
			if err != nil {
				t.Fatal(err)
			}
			h := store.Hold{ID: a[0].ID + 1, Gen: a[0].Gen}
			release := fault(ill.Fault{Statement: "COMMIT", Within: "manual = true"})
			_, err = s.Retry(t.Context(), store.Change{Actor: "test", At: time.Now()}, store.RetryOrder{Tenant: c.tenant.ID, Delivery: h.ID, Held: []store.Hold{h}}, nil)
			if !errors.Is(err, store.ErrUnsettled) {
				t.Errorf("retried with %v", err)
			}
			if ids := claimed(); len(ids) != 1 || ids[0] != h.ID {
				t.Errorf("claimed %v, want %v", ids, h.ID)
			}
			release()
			pgtest.Exec(t, c.url, `DELETE FROM posthorn.due`)
		})
	}
	noneUnheld(t, s)
	tally.Count(t, nobody, cases)
}

// A row that a fault of ours left to nobody is found.
func TestWhatNobodyHoldsIsGivenBack(t *testing.T) {
	t.Parallel()
	c := newCluster(t, database(t))
	s := open(t, postgres.Options{URL: c.url, Lease: lease, Log: logger(), Compare: 100 * time.Millisecond})
	told := make(chan store.Notice, 100)
	s.Watch(func(n store.Notice) { told <- n })
	got, err := s.Publish(t.Context(), c.publication(s, "", ""))
	if err != nil {
		t.Fatal(err)
	}
	kept, lost := store.Hold{ID: got[0].ID + 1, Gen: got[0].Gen}, store.Hold{ID: got[1].ID + 1, Gen: got[1].Gen}
	s.Forget(lost)
	c.eventually("it is found", func() bool { _, unheld := s.Holdings(); return unheld == 1 })
	if n := <-told; n.Kind != store.NoticeDue {
		t.Errorf("told %v", n)
	}
	if work := c.claim(s); len(work) != 1 || work[0].ID != lost.ID {
		t.Errorf("claimed %v", work)
	}
	if !s.MayAttempt(t.Context(), kept) {
		t.Error("what is held was given back, too")
	}
	// What an engine lets go of because its endpoint was deleted is Sweep's to cancel.
	if err := s.DeleteEndpoint(t.Context(), store.Change{Actor: "test", At: time.Now()}, c.tenant.ID, c.to.Ref, 0); err != nil {
		t.Fatal(err)
	}
	s.Forget(kept)
	forgotten := time.Now()
	c.eventually("it was compared", func() bool { return time.Since(forgotten) > time.Second })
	if _, unheld := s.Holdings(); unheld != 1 {
		t.Errorf("%d were found unheld", unheld)
	}
}
