package access

import (
	"testing"
	"time"
)

// Tokens come and go; what is remembered of them is bounded, and those that are
// being limited stay so while others have a full bucket.
func TestRememberedRatesAreBounded(t *testing.T) {
	r := newRates(1)
	now := time.Date(2026, 4, 29, 9, 10, 0, 0, time.UTC)
	for token := range int64(3 * maxRates) {
		r.take(token, now)
		if len(r.by) > maxRates {
			t.Fatalf("%d are remembered", len(r.by))
		}
	}
	now = now.Add(time.Hour) // all have a full bucket again
	for token := range int64(10) {
		r.take(-1-token, now)
		for other := range int64(100) {
			r.take(1_000_000+100*token+other, now)
		}
		if r.take(-1-token, now) == 0 {
			t.Error("a token that is being limited was forgotten before those that are not")
		}
	}
}
