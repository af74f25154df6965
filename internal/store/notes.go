package store

import (
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Notes encodes the notes of an event's targets for a row of its own, as
// {"note":[endpoint,…]}, for many have the same one; "" when there are none.
func Notes(targets []PublishTarget) string {
	var by map[string][]int64
	for i := range targets {
		if targets[i].Note == "" {
			continue
		}
		if by == nil {
			by = make(map[string][]int64)
		}
		by[targets[i].Note] = append(by[targets[i].Note], targets[i].Endpoint)
	}
	if by == nil {
		return ""
	}
	b, err := json.Marshal(by, json.Deterministic(true), jsontext.AllowInvalidUTF8(true))
	if err != nil {
		panic(err) // a map of numbers by texts of any kind can be encoded
	}
	return string(b)
}

// NoteFor is the note of the event's delivery to an endpoint; "" for none, and for
// what a later version wrote in another form.
func NoteFor(notes string, endpoint int64) (string, error) {
	if notes == "" {
		return "", nil
	}
	var by map[string]jsontext.Value
	if err := json.Unmarshal([]byte(notes), &by); err != nil {
		return "", fmt.Errorf("store: the notes of an event: %w", err)
	}
	for note, to := range by {
		var endpoints []int64
		if json.Unmarshal(to, &endpoints) == nil && slices.Contains(endpoints, endpoint) {
			return note, nil
		}
	}
	return "", nil
}
