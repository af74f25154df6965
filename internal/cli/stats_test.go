package cli

import "testing"

func TestSparklineHidesNothing(t *testing.T) {
	for want, counts := range map[string][]int{"": nil, "  ": {0, 0}, "█ ▁": {1000, 0, 1}, "▁█▄": {125, 1000, 500}} {
		if got := sparkline(counts, 1000); got != want {
			t.Errorf("%v is drawn %q, want %q", counts, got, want)
		}
	}
	for want, share := range map[string]float64{"100.00 %": 1, "99.99 %": 0.999999, "0.00 %": 0.00001} {
		if got := percent(share); got != want {
			t.Errorf("%v is %s", share, got)
		}
	}
}
