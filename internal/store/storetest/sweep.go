package storetest

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/posthorn/posthorn/internal/store"
)

// ran is for how long the services of all tests have run.
var ran atomic.Int64

// Sweep sweeps at a time until nothing is left to do, as a service that has run for
// long and sweeps again an hour later, and returns the sum.
func Sweep(t testing.TB, s store.Keeper, now time.Time, keep store.Retention) (sum store.Swept) {
	t.Helper()
	for range 2 {
		keep.Ran = store.SureAfter + time.Duration(ran.Add(int64(store.ExpiredShown)))
		sum = plus(sum, sweepOnce(t, s, now, keep))
	}
	return sum
}

// sweepOnce sweeps until nothing is left to do.
func sweepOnce(t testing.TB, s store.Keeper, now time.Time, keep store.Retention) (sum store.Swept) {
	t.Helper()
	for range 10_000 {
		n, err := s.Sweep(t.Context(), now, keep)
		if err != nil {
			t.Fatal(err)
		}
		sum = plus(sum, n)
		if !n.More {
			return sum
		}
	}
	t.Fatal("Sweep never ends")
	return sum
}

// plus adds up what two slices did.
func plus(a, b store.Swept) store.Swept {
	return store.Swept{
		Canceled: a.Canceled + b.Canceled, Expired: a.Expired + b.Expired, Events: a.Events + b.Events,
		Deliveries: a.Deliveries + b.Deliveries, Keys: a.Keys + b.Keys, Audit: a.Audit + b.Audit,
		Payloads: a.Payloads + b.Payloads, Logs: a.Logs + b.Logs,
	}
}
