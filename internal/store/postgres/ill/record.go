package ill

import (
	"slices"
	"strings"
)

// Execution is what a node had the server do.
type Execution struct {
	Text    string // of the statement
	Purpose string // the connection's application_name
}

type record struct {
	purpose string
	seen    []Execution
}

func (r *record) add(e Execution) {
	if strings.HasPrefix(e.Purpose, r.purpose) {
		r.seen = append(r.seen, e)
	}
}

// Record notes the executions on connections whose application_name begins with
// purpose, until stop returns them, in the order in which they came. So a test
// finds out what a method executes, and can strike each of it.
func (w *Wire) Record(purpose string) (stop func() []Execution) {
	r := &record{purpose: purpose}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.records = append(w.records, r)
	return func() []Execution {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.records = slices.DeleteFunc(w.records, func(o *record) bool { return o == r })
		return r.seen
	}
}
