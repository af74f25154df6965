package store

import (
	"fmt"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/posthorn/posthorn"
)

// EncodeSelection writes a replay's selection as it is stored.
func EncodeSelection(s *posthorn.ReplaySelection) (string, error) {
	for _, p := range s.Types {
		if err := CheckText(string(p)); err != nil {
			return "", err
		}
	}
	b, err := json.Marshal(s)
	if err != nil {
		return "", fmt.Errorf("store: write a selection: %w", err)
	}
	return string(b), nil
}

// DecodeSelection is the reverse of [EncodeSelection].
func DecodeSelection(text string) (s posthorn.ReplaySelection, err error) {
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return s, fmt.Errorf("store: read a selection: %w", err)
	}
	return s, nil
}

// SelectedStates are the states of a selection, as bits of 1<<State.
func SelectedStates(s *posthorn.ReplaySelection) (mask int64) {
	states := s.States
	if len(states) == 0 {
		states = posthorn.ReplayStates()
	}
	for _, name := range states {
		if state := posthorn.ParseState(name); state.Final() {
			mask |= 1 << state
		}
	}
	return mask
}

// Candidate is what a replay may send: a finished delivery, or an event that the
// endpoint has no delivery of.
type Candidate struct {
	ReplaySample
	Log []byte // attempts; nil where they are not needed
}

// Place is where the candidate stands in the order in which a replay goes.
func (c *Candidate) Place() posthorn.ID {
	if c.Delivery != 0 {
		return c.Delivery
	}
	return c.Event
}

// EndedAfter reports whether the delivery's last attempt ended after a time: it
// was not finished yet, then, or finished otherwise.
func (c *Candidate) EndedAfter(t time.Time) (bool, error) {
	attempts, err := Attempts(c.Log)
	if err != nil || len(attempts) == 0 {
		return false, err
	}
	last := attempts[len(attempts)-1]
	return last.At.Add(last.Duration).After(t), nil
}

// Plan gathers a plan from candidates.
func (p *ReplayPlan) Plan(c *Candidate) { p.Sample(c.ReplaySample) }

// NextReplayState is the state after a user's order; changed tells whether it is
// another one. ErrFinal for a replay that is finished.
func NextReplayState(from, to posthorn.ReplayState) (changed bool, err error) {
	switch {
	case from == to:
		return false, nil
	case from.Final():
		return false, ErrFinal
	}
	return true, nil
}
