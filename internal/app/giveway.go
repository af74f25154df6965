package app

import "github.com/posthorn/posthorn/internal/share"

// giveWay chooses the connection whose place a newcomer gets; nil when it is the
// newcomer that has to go. Always it is one of the party that holds most, and of
// its connections the one that is longest in its state. In this order:
//
//  1. of parties with more than an equal part of all: a connection that waits, then
//     one whose bodies are still being read, if the party holds more than the
//     newcomer's then will;
//  2. one that waits, of a party that holds more than little;
//  3. one that is being answered, if its party has more than an equal part and the
//     newcomer's has little: it may be one that reads no answers;
//  4. one that waits, of anybody.
//
// So what is in use is let alone while something unused can go, but nobody keeps
// others out by using all. It looks at every party, and only when all places are
// taken. It is called with mu held.
func (l *connections) giveWay(newcomer share.Party) *connection {
	held, parties := 1, len(l.parties)
	if by := l.parties[newcomer]; by != nil {
		held += by.open
	} else {
		parties++
	}
	var unused, unread, spare, answered, any *connection
	for _, by := range l.parties {
		idle := by.oldest(isWaiting)
		any = largest(any, idle)
		if !share.Reserve(int64(l.max), int64(by.open), parties) {
			spare = largest(spare, idle)
		}
		if by.open*parties <= l.max {
			continue
		}
		unused = largest(unused, idle)
		if by.open > held {
			unread = largest(unread, by.oldest(isReading))
			answered = largest(answered, by.oldest(isAnswering))
		}
	}
	if !share.Reserve(int64(l.max), int64(held), parties) {
		answered = nil
	}
	for _, c := range []*connection{unused, unread, spare, answered} {
		if c != nil {
			return c
		}
	}
	return any
}

// oldest is the connection that is longest in the state; nil for none.
func (h *holder) oldest(s state) *connection {
	if e := h.in[s].Front(); e != nil {
		return e.Value.(*connection)
	}
	return nil
}

// largest is that of the party which holds more, or else the one that is longer in
// its state.
func largest(a, b *connection) *connection {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	case a.by.open != b.by.open:
		if a.by.open > b.by.open {
			return a
		}
		return b
	case a.since < b.since:
		return a
	}
	return b
}
