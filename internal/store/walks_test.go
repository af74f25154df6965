package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestWalksOfATenantAreOneAtATime has a tenant begin more walks than may wait, and
// another one begin one.
func TestWalksOfATenantAreOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := NewWalks()
		var mu sync.Mutex
		under, most, done := 0, 0, 0
		for range 1 + WalksWaiting {
			go func() {
				end, err := w.Begin(t.Context(), 1)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				under++
				most = max(most, under)
				mu.Unlock()
				<-time.After(time.Second)
				mu.Lock()
				under--
				done++
				mu.Unlock()
				end()
			}()
			synctest.Wait()
		}
		if _, err := w.Begin(t.Context(), 1); !errors.Is(err, ErrBusy) {
			t.Errorf("one more than may wait: %v, want ErrBusy", err)
		}
		end, err := w.Begin(t.Context(), 2)
		if err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		if done != 0 {
			t.Error("another tenant's walk waited")
		}
		mu.Unlock()
		end()
		<-time.After(time.Minute)
		mu.Lock()
		defer mu.Unlock()
		if most != 1 || done != 1+WalksWaiting {
			t.Errorf("%d were done, %d of them at once", done, most)
		}
	})
}

// TestSlicesTakeTurns has a tenant with many slices begin before others with one each.
func TestSlicesTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := NewWalks()
		var mu sync.Mutex
		var order []string
		under, most := 0, 0
		slice := func(tenant int64, n int) {
			err := w.Slice(t.Context(), tenant, func(ctx context.Context) error {
				if !OfWalk(ctx) || OfWalk(t.Context()) {
					t.Error("a slice's ctx is not told from another")
				}
				mu.Lock()
				under++
				most = max(most, under)
				mu.Unlock()
				<-time.After(time.Second)
				mu.Lock()
				defer mu.Unlock()
				under--
				order = append(order, fmt.Sprintf("%d.%d", tenant, n))
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		}
		walk := func(tenant int64, n int) {
			go func() {
				for i := range n {
					slice(tenant, i)
				}
			}()
			synctest.Wait()
		}
		for tenant := range int64(WalkPlaces) {
			walk(1+tenant, 3)
		}
		walk(8, 1)
		walk(9, 1)
		if w.Waiting() == 0 {
			t.Error("nobody waits")
		}
		<-time.After(time.Minute)
		mu.Lock()
		defer mu.Unlock()
		for i := 0; i < len(order); i += WalkPlaces { // who goes at once ends in any order
			slices.Sort(order[i:min(i+WalkPlaces, len(order))])
		}
		want := []string{"1.0", "2.0", "8.0", "9.0", "1.1", "2.1", "1.2", "2.2"}
		if diff := cmp.Diff(want, order); diff != "" || most != WalkPlaces {
			t.Errorf("%d at once, in the order (-want +got):\n%s", most, diff)
		}
	})
}

func TestSlotsAddUp(t *testing.T) {
	slot := func(start int64, ok int) Slot { return Slot{Start: start, Hour: Hour{OK: ok}} }
	got := AddSlots([]Slot{slot(1, 1), slot(3, 2), slot(4, 1)}, []Slot{slot(0, 5), slot(3, 3), slot(9, 1)})
	want := []Slot{slot(0, 5), slot(1, 1), slot(3, 5), slot(4, 1), slot(9, 1)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(want, AddSlots(nil, want)); diff != "" {
		t.Error(diff)
	}
}
