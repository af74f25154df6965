package sqlite

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/posthorn/posthorn/internal/store"
)

func ops(kind opKind, n, rows int) []*op {
	list := make([]*op, n)
	for i := range list {
		list[i] = &op{kind: kind, rows: rows}
	}
	return list
}

func TestTooManyPublishesAreRefusedAndOthersAreNot(t *testing.T) {
	for name, o := range map[string]op{"by count": {kind: opPublish}, "by bytes": {kind: opPublish, bytes: 1 << 20}} {
		q := newQueue()
		var err error
		n := 0
		for ; err == nil; n++ {
			err = q.add(&op{kind: o.kind, bytes: o.bytes})
		}
		if !errors.Is(err, store.ErrOverloaded) || n < 48 || n > 8192 {
			t.Errorf("%s: %v after %d", name, err, n)
		}
		for _, kind := range []opKind{opResult, opChange, opSweep} {
			if err := q.add(&op{kind: kind}); err != nil {
				t.Errorf("%s: kind %d is refused too: %v", name, kind, err)
			}
		}
		q.take()
		if err := q.add(&op{kind: o.kind, bytes: o.bytes}); err != nil {
			t.Errorf("%s: refused with room again: %v", name, err)
		}
	}
}

func TestAPublishLargerThanTheBoundIsTakenWhenNothingElseWaits(t *testing.T) {
	if err := newQueue().add(&op{kind: opPublish, bytes: 128 << 20}); err != nil {
		t.Error(err)
	}
}

func TestResultsBlockWhileTheQueueIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue()
		for _, o := range ops(opResult, maxResults, 1) {
			if err := q.add(o); err != nil {
				t.Fatal(err)
			}
		}
		added := make(chan error, 2)
		go func() { added <- q.add(&op{kind: opResult}) }()
		synctest.Wait()
		if len(added) != 0 {
			t.Fatal("not blocked")
		}
		q.take()
		synctest.Wait()
		if len(added) != 1 || <-added != nil {
			t.Error("still blocked with room again")
		}
		for q.count[opResult] < maxResults {
			q.add(&op{kind: opResult})
		}
		go func() { added <- q.add(&op{kind: opResult}) }()
		synctest.Wait()
		q.close()
		if err := <-added; !errors.Is(err, store.ErrClosed) {
			t.Errorf("closed while blocked: %v", err)
		}
	})
}

func TestSweepGivesWayButHasItsTurn(t *testing.T) {
	q := newQueue()
	q.add(&op{kind: opSweep})
	for range sweepTurn {
		q.add(&op{kind: opPublish, rows: 10_000})
	}
	q.add(&op{kind: opPublish})
	for i := range sweepTurn {
		if group, _ := q.take(); group[0].kind != opPublish {
			t.Fatalf("group %d is a sweep", i)
		}
	}
	if group, _ := q.take(); group[0].kind != opSweep {
		t.Error("the sweep starves")
	}
}

// TestCloseIsNotMissed: an add and a close may share one wake-up. Whoever takes
// what was added must be woken once more to see that the queue was closed.
func TestCloseIsNotMissed(t *testing.T) {
	q := newQueue()
	if err := q.add(&op{kind: opResult}); err != nil {
		t.Fatal(err)
	}
	q.close()
	<-q.wake
	if group, _ := q.take(); len(group) != 1 {
		t.Fatalf("took %d", len(group))
	}
	select {
	case <-q.wake:
	default:
		t.Fatal("nothing wakes the writer to see that the queue was closed: Close waits for ever")
	}
	if group, closed := q.take(); len(group) != 0 || !closed {
		t.Errorf("took %d, closed %v", len(group), closed)
	}
}
