package store

import (
	"maps"
	"testing"
	"time"
)

// TestARecountGoesThroughTheDaysThatAreOver begins passes and counts days.
func TestARecountGoesThroughTheDaysThatAreOver(t *testing.T) {
	at := func(day int64, hour int) time.Time {
		return time.Unix(day*86400, 0).Add(time.Duration(hour) * time.Hour)
	}
	const today = 20_580 // divides by 7
	for name, c := range map[string]struct {
		oldest, last int64
		now          time.Time
		from, until  int64 // 0: no pass
	}{
		"never counted":                 {today - 20, 0, at(today+1, 2), today - 20, today + 1},
		"counted yesterday":             {today - 20, today, at(today+1, 2), today, today + 1},
		"counted, once a week all":      {today - 20, today - 1, at(today, 2), today - 20, today},
		"counted long ago":              {today - 20, today - 9, at(today+1, 2), today - 20, today + 1},
		"counted already":               {today - 20, today + 1, at(today+1, 2), 0, 0},
		"the day is over for too short": {today - 20, today, at(today+1, 0), 0, 0},
		"a clock was ahead":             {today - 20, today + 400, at(today+1, 2), today - 20, today + 1},
	} {
		var r Recount
		due := r.Begin(c.oldest, c.last, c.now)
		if due != (c.until != 0) {
			t.Errorf("%s: a pass is due: %t", name, due)
			continue
		}
		if day, _ := r.Day(); due && (day != c.from || r.Until() != c.until) {
			t.Errorf("%s: it counts from %d until %d, want %d and %d", name, day, r.Until(), c.from, c.until)
		}
	}
	var r Recount
	r.Begin(today-2, 0, at(today, 2))
	from, below := r.Slice()
	if DayOf(from) != today-2 || DayOf(below) != today-1 || DayOf(below-1) != today-2 {
		t.Errorf("the first slice is from %v below %v", from.Time(), below.Time())
	}
	last := from + 5
	if r.Take(map[int64]int64{1: 10, 2: 20}, last, RecountSlice) {
		t.Error("the day is complete though a slice was full")
	}
	if from, _ = r.Slice(); from != last+1 {
		t.Errorf("the second slice is from %v", from)
	}
	if !r.Take(map[int64]int64{1: 5}, last+9, 1) {
		t.Error("the day is not complete")
	}
	if _, sum := r.Day(); !maps.Equal(sum, map[int64]int64{1: 15, 2: 20}) {
		t.Errorf("counted are %v", sum)
	}
	r.NextDay()
	r.Take(map[int64]int64{1: 10}, DayFrom(today-1), RecountSlice)
	r.Leave(Keeps{{1, today - 5}: -3})
	if day, _ := r.Day(); day != today-1 {
		t.Error("it left a day of which nothing was taken")
	}
	r.Leave(Keeps{{1, today - 1}: -3})
	if day, sum := r.Day(); day != today || len(sum) != 0 || !r.Over() {
		t.Errorf("it goes on at %d with %v though something was taken from the day", day, sum)
	}
	if got := Corrections(3, map[int64]int64{1: 10, 2: 5}, map[int64]int64{1: 10, 2: 7, 3: 4}); !maps.Equal(got, Keeps{{2, 3}: -2, {3, 3}: -4}) {
		t.Errorf("corrections are %v", got)
	}
}

// TestALedgerCountsWhoKeepsSomething also below zero, which a crash may leave.
func TestALedgerCountsWhoKeepsSomething(t *testing.T) {
	var l Ledger
	l.Load(map[int64]int64{1: 10, 2: -5, 3: 0})
	for _, c := range []struct {
		more Keeps
		want Kept // of 2
	}{
		{nil, Kept{0, 10, 1}},
		{Keeps{{2, 7}: 4}, Kept{0, 10, 1}},
		{Keeps{{2, 7}: 4, {2, 8}: 1}, Kept{4, 14, 2}},
		{Keeps{{1, 7}: -10}, Kept{4, 4, 1}},
		{Keeps{{2, 8}: -9}, Kept{0, 0, 0}},
	} {
		l.Add(c.more)
		if got := l.Kept(2); got != c.want {
			t.Errorf("after %v: %+v, want %+v", c.more, got, c.want)
		}
	}
}
