package posthorn

import (
	"errors"
	"strings"
	"time"
)

// The times that are taken in: from the first, before the second. They are what fits
// into a whole number of nanoseconds since the epoch, which is how stores keep times;
// one beyond would wrap around to another.
var (
	earliestTime = time.Date(1678, time.January, 1, 0, 0, 0, 0, time.UTC)
	endOfTimes   = time.Date(2262, time.January, 1, 0, 0, 0, 0, time.UTC)
)

// What is wrong with a time that came in. Each text goes on behind the name of the
// member or the parameter.
var (
	ErrTimeForm  = errors.New("must be an RFC 3339 time such as 2026-04-29T09:10:00Z")
	ErrTimeEarly = errors.New("must be 1678-01-01T00:00:00Z or later")
	ErrTimeEpoch = errors.New("must be 1970-01-01T00:00:00Z or later")
	ErrTimeLate  = errors.New("must be before 2262-01-01T00:00:00Z")
)

// ParseTime reads a time that somebody sent, and returns it in UTC. The errors are
// [ErrTimeForm], for what is no date-time of RFC 3339, section 5.6, and those of
// [CheckTime]. It is stricter than time.Parse: an hour has two digits, and the fraction
// follows a point.
func ParseTime(text string) (time.Time, error) {
	const seconds = len("2026-04-29T09:10:00")
	text = strings.ToUpper(text) // t and z may be small
	if len(text) <= seconds || text[13] != ':' || text[seconds] == ',' {
		return time.Time{}, ErrTimeForm
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, ErrTimeForm
	}
	t = t.UTC()
	return t, CheckTime(t)
}

// CheckTime returns [ErrTimeEarly] or [ErrTimeLate] for a time that no store can keep,
// the zero time among them.
func CheckTime(t time.Time) error {
	switch {
	case t.Before(earliestTime):
		return ErrTimeEarly
	case !t.Before(endOfTimes):
		return ErrTimeLate
	}
	return nil
}
