package posthorn

import (
	"testing"
	"time"
)

func TestOnlyTimesThatCanBeKeptAreTakenIn(t *testing.T) {
	for text, want := range map[string]error{
		"1970-01-01T00:00:00Z":            nil,
		"1970-01-01t00:00:00z":            nil,
		"1969-12-31T23:00:00-01:00":       nil,
		"2261-12-31T23:59:59.999999999Z":  nil,
		"1969-12-31T23:59:59.999999999Z":  nil,
		"1678-01-01T00:00:00Z":            nil,
		"1677-12-31T23:59:59Z":            ErrTimeEarly,
		"1678-01-01T00:59:59+01:00":       ErrTimeEarly,
		"1677-09-21T00:12:43Z":            ErrTimeEarly,
		"0001-01-01T00:00:00Z":            ErrTimeEarly,
		"0000-01-01T00:00:00+23:59":       ErrTimeEarly,
		"2262-01-01T00:00:00Z":            ErrTimeLate,
		"2261-12-31T23:59:59-00:01":       ErrTimeLate,
		"2554-07-21T23:34:33Z":            ErrTimeLate,
		"9999-12-31T23:59:59-23:59":       ErrTimeLate,
		"-0001-01-01T00:00:00Z":           ErrTimeForm,
		"+12026-01-01T00:00:00Z":          ErrTimeForm,
		"10000-01-01T00:00:00Z":           ErrTimeForm,
		"-1":                              ErrTimeForm,
		"1714381800":                      ErrTimeForm,
		"":                                ErrTimeForm,
		"2026-04-29T9:10:00Z":             ErrTimeForm,
		"2026-04-29T09:10:00,5Z":          ErrTimeForm,
		"2026-02-30T00:00:00Z":            ErrTimeForm,
		"2026-04-29T09:10:00":             ErrTimeForm,
		"2026-04-29T09:10:00Z and so on":  ErrTimeForm,
		"Wed, 29 Apr 2026 09:10:00 +0000": ErrTimeForm,
	} {
		got, err := ParseTime(text)
		if err != want {
			t.Errorf("%s: %v, want %v", text, err, want)
		}
		if err == nil && (got.Location() != time.UTC || !time.Unix(0, got.UnixNano()).Equal(got)) {
			t.Errorf("%s became %s", text, got)
		}
	}
}
