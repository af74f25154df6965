package share

import (
	"errors"
	"testing"
)

// TestBytesAreSharedWhereRoomIsShort goes through both bounds of the room, those of
// an equal share, and the fixed one.
func TestBytesAreSharedWhereRoomIsShort(t *testing.T) {
	const gib = 1 << 30
	ample, short, out := Room{2 * gib, gib}, Room{2*gib - 1, gib}, Room{gib - 1, gib}
	for name, c := range map[string]struct {
		room        Room
		kept        Kept
		more, bound int64
		most        int64
		want        error
	}{
		"ample room, far more than a share":     {ample, Kept{1000, 1010, 10}, 1, 0, 0, nil},
		"room is not known":                     {Room{}, Kept{1000, 1010, 10}, 1, 0, 0, nil},
		"short, more than an equal share":       {short, Kept{102, 1010, 10}, 1, 0, 101, ErrExceeded},
		"short, an equal share":                 {short, Kept{101, 1010, 10}, 1000, 0, 0, nil},
		"short, an equal share, rounded":        {short, Kept{2, 3, 2}, 1, 0, 0, nil},
		"short, nothing is kept":                {short, Kept{0, 1010, 10}, 1, 0, 0, nil},
		"short, it is alone":                    {short, Kept{1010, 1010, 1}, 1, 0, 0, nil},
		"short, nothing is counted yet":         {short, Kept{}, 1, 0, 0, nil},
		"at the reserve, nothing is kept":       {out, Kept{0, 1010, 10}, 1, 0, 0, ErrFull},
		"at the reserve, far more than a bound": {out, Kept{1000, 1010, 10}, 1, 10, 0, ErrFull},
		"a bound, up to it":                     {ample, Kept{90, 90, 1}, 10, 100, 0, nil},
		"a bound, beyond it":                    {ample, Kept{90, 90, 1}, 11, 100, 100, ErrExceeded},
		"a bound, room is not known":            {Room{}, Kept{90, 90, 1}, 11, 100, 100, ErrExceeded},
		"a bound, short, more than a share":     {short, Kept{50, 60, 10}, 1, 100, 6, ErrExceeded},
	} {
		if most, err := Bytes(c.room, c.kept, c.more, c.bound); !errors.Is(err, c.want) || most != c.most {
			t.Errorf("%s: got %d and %v, want %d and %v", name, most, err, c.most, c.want)
		}
	}
}
