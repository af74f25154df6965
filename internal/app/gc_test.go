package app

import "testing"

func TestSmallHeapsMayGrowFurther(t *testing.T) {
	for live, want := range map[uint64]int{0: 400, 16 << 20: 400, 64 << 20: 200, 128 << 20: 100, 1 << 30: 100} {
		if got := gcPercent(live); got != want {
			t.Errorf("%d MiB live: %d %%, want %d", live>>20, got, want)
		}
	}
}
