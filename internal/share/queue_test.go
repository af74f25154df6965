package share

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestPartiesTakeTurnsInAQueue(t *testing.T) {
	var q Queue[string, int]
	for i := range 1000 {
		q.Push("much", i)
	}
	if got := []int{q.Pop(), q.Pop()}; !slices.Equal(got, []int{0, 1}) {
		t.Fatalf("alone it gets %v", got)
	}
	for i := range 3 {
		q.Push("little", 5000+i)
	}
	q.Push("other", 9000)
	var got []int
	for range 8 {
		if first := q.First(); first != q.Pop() {
			t.Fatal("First is not what comes next")
		} else {
			got = append(got, first)
		}
	}
	if want := []int{2, 5000, 9000, 3, 5001, 4, 5002, 5}; !slices.Equal(got, want) {
		t.Errorf("they leave as %v, want %v", got, want)
	}
}

// TestAQueueLosesNothing goes at random.
func TestAQueueLosesNothing(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 1))
	var q Queue[int, [2]int]
	in, out, waiting := make(map[int]int), make(map[int]int), 0
	for range 20_000 {
		if rng.IntN(100) < 52 {
			who := rng.IntN(8)
			q.Push(who, [2]int{who, in[who]})
			in[who]++
			waiting++
		} else if q.Len() > 0 {
			got := q.Pop()
			if got[1] != out[got[0]] {
				t.Fatalf("seed %d: of party %d came %d, want %d", seed, got[0], got[1], out[got[0]])
			}
			out[got[0]]++
			waiting--
		}
		if q.Len() != waiting {
			t.Fatalf("seed %d: %d are in it, want %d", seed, q.Len(), waiting)
		}
	}
}
