package sqlite

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestPackedIDsComeBack(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 1000 {
		ids := make([]int64, 1+r.IntN(postingIDs))
		for i := range ids {
			ids[i] = 1 + r.Int64N(1<<(1+r.IntN(62)))
		}
		slices.Sort(ids)
		ids = slices.Compact(ids)
		last, blob := packIDs(ids)
		got, err := appendUnpacked(nil, last, blob)
		slices.Reverse(got)
		if err != nil || !slices.Equal(got, ids) {
			t.Fatalf("%v became %v, %v", ids, got, err)
		}
	}
}

// What no row holds is a fault of the file, not a wrong list.
func FuzzUnpackIDs(f *testing.F) {
	last, blob := packIDs([]int64{1, 5, 1 << 60})
	f.Add(last, blob)
	f.Add(int64(7), []byte{0x80})
	f.Add(int64(7), []byte{0})
	f.Add(int64(7), []byte{8})
	f.Fuzz(func(t *testing.T, last int64, blob []byte) {
		ids, err := appendUnpacked(nil, last, blob)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Error(err)
			}
			return
		}
		slices.Reverse(ids)
		if !slices.IsSorted(ids) || len(slices.Compact(ids)) != len(ids) || len(ids) > 1+len(blob) {
			t.Errorf("%d, %x became %v", last, blob, ids)
		}
		if ids[0] < 0 && last >= 0 {
			t.Errorf("%d, %x became %v", last, blob, ids)
		}
	})
}
