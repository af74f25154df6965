package api

import (
	"math"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/posthorn/posthorn"
)

// takeInt reads a whole number. 1.0 and 1e3 are whole, as JSON does not tell
// integers apart (JSON Schema 2020-12, 4.2.3).
func takeInt(to *int64, v jsontext.Value, at jsontext.Pointer) []posthorn.Fault {
	var f float64
	if faults := takeFloat(&f, v, at); faults != nil {
		return faults
	}
	if f != math.Trunc(f) || math.Abs(f) > 1<<53 {
		return []posthorn.Fault{{Pointer: string(at), Detail: "must be a whole number"}}
	}
	*to = int64(f)
	return nil
}

func takeFloat(to *float64, v jsontext.Value, at jsontext.Pointer) []posthorn.Fault {
	if v.Kind() != '0' {
		return wrongKind(v, at, "a number")
	}
	f, err := strconv.ParseFloat(string(v), 64)
	if err != nil {
		return []posthorn.Fault{{Pointer: string(at), Detail: "is too large a number"}}
	}
	*to = f
	return nil
}

func takeBool(to *bool, v jsontext.Value, at jsontext.Pointer) []posthorn.Fault {
	if k := v.Kind(); k != 't' && k != 'f' {
		return wrongKind(v, at, "true or false")
	}
	*to = v.Kind() == 't'
	return nil
}

func takeInts(to *[]int64, v jsontext.Value, at jsontext.Pointer) (faults []posthorn.Fault) {
	if v.Kind() != '[' {
		return wrongKind(v, at, "an array of whole numbers")
	}
	*to = []int64{}
	for i, item := range elements(v) {
		var n int64
		faults = append(faults, takeInt(&n, item, at.AppendToken(strconv.Itoa(i)))...)
		*to = append(*to, n)
	}
	return faults
}
