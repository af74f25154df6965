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
		n := sweepOnce(t, s, now, keep)
		sum.Canceled, sum.Expired, sum.Events = sum.Canceled+n.Canceled, sum.Expired+n.Expired, sum.Events+n.Events
		sum.Deliveries, sum.Keys, sum.Audit = sum.Deliveries+n.Deliveries, sum.Keys+n.Keys, sum.Audit+n.Audit
		sum.Payloads, sum.Logs = sum.Payloads+n.Payloads, sum.Logs+n.Logs
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
		sum.Canceled, sum.Expired, sum.Events = sum.Canceled+n.Canceled, sum.Expired+n.Expired, sum.Events+n.Events
		sum.Deliveries, sum.Keys, sum.Audit = sum.Deliveries+n.Deliveries, sum.Keys+n.Keys, sum.Audit+n.Audit
		sum.Payloads, sum.Logs = sum.Payloads+n.Payloads, sum.Logs+n.Logs
		if !n.More {
			return sum
		}
	}
	t.Fatal("Sweep never ends")
	return sum
}
