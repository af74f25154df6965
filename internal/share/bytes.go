package share

// Room is what is left of where bytes are kept. The zero Room is not known, and is
// never short.
type Room struct {
	Free, Reserve int64
}

// Reserved reports whether nobody may take any more: what is left is for finishing
// what was taken on.
func (r Room) Reserved() bool { return r.Free < r.Reserve }

// Short reports whether room is so scarce that it is shared.
func (r Room) Short() bool { return r.Free < 2*r.Reserve }

// Kept is what a party keeps, what all keep together, and how many they are.
type Kept struct {
	Own, All int64
	Parties  int
}

// Equal is an equal share of what all keep, rounded up.
func (k Kept) Equal() int64 {
	n := int64(max(k.Parties, 1))
	return (max(k.All, 0) + n - 1) / n
}

// Bytes decides whether a party may keep more; bound is what each may keep at most, 0
// for no bound. [ErrFull]: nobody may. [ErrExceeded]: it may not, because it keeps most
// or more already; others may.
func Bytes(r Room, k Kept, more, bound int64) (most int64, err error) {
	switch {
	case r.Reserved():
		return 0, ErrFull
	case bound > 0 && k.Own+more > bound:
		return bound, ErrExceeded
	case r.Short() && k.Own > k.Equal():
		return k.Equal(), ErrExceeded
	}
	return 0, nil
}
