package ill

import (
	"bytes"
	"slices"
	"strings"
	"sync"
	"time"
)

// Moment is when a fault happens to an execution.
type Moment int

const (
	// Query is before the server acts: it has not got the execution, and rests. What
	// the node sent before it, in the same pipeline too, has been done.
	Query Moment = iota
	// Answer is after the server acted: all it says, up to being ready for the next
	// query, has come to the wire, and the node gets none of it.
	Answer
)

// Act is what a fault does.
type Act int

const (
	// Drop breaks the connection on both sides.
	Drop Act = iota
	// Hold keeps the query, or the answer, until Release.
	Hold
	// Delay keeps it for a time.
	Delay
	// Silence lets nothing pass on this connection any more, in either direction,
	// and tells nobody, as when a cable is out.
	Silence
)

// Fault says what happens to which execution. A condition that is empty holds for
// every execution.
type Fault struct {
	Statement string // part of its text, as it is spelled: pgx's own are "begin" and "commit"
	Within    string // part of the text of an execution before it in the same transaction, for a COMMIT above all
	Purpose   string // how the connection's application_name begins
	Bytes     string // that the message with its parameters holds, or its simple query
	Nth       int    // which execution of those that all this is true of, counted from now; 0 is 1
	At        Moment
	Do        Act
	For       time.Duration // of a Delay
}

// Strike is a fault that happens once.
//
// While it holds or delays something, the connection stays open towards the server
// even if the node gives up. A query that is held passes when it is released, late,
// to a server that does not know that nobody waits any more; its answer ends the
// connection. An answer that is held ends it when it is released. (A driver that
// gives up may also send a cancellation, on a connection of its own: wait for Left
// before a Release, or it may meet the query that was late.) A connection
// that was silenced stays open towards the server until it is released or the wire
// breaks, whatever the node does. If the server ends the connection before it answers, a fault of
// its answer does not happen.
type Strike struct {
	fault    Fault
	wire     *Wire
	struck   chan struct{}
	left     chan struct{}
	released chan struct{}
	once     sync.Once

	seen int // executions that it could have been; guarded by the wire's lock
}

// Strike arms a fault. Several may be armed at once, also for one execution: they
// happen in the order in which they were armed.
func (w *Wire) Strike(f Fault) *Strike {
	f.Nth = max(f.Nth, 1)
	s := &Strike{fault: f, wire: w, struck: make(chan struct{}), left: make(chan struct{}), released: make(chan struct{})}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.armed = append(w.armed, s)
	return s
}

// Struck is closed when the fault happens; for a Hold or a Delay, when it begins.
// A node learns of a Drop after that.
func (s *Strike) Struck() <-chan struct{} { return s.struck }

// Left is closed when the fault has happened and the node has given the connection
// up: it said goodbye, which pgx does after its cancellation, or closed it.
func (s *Strike) Left() <-chan struct{} { return s.left }

// Release lets pass what is held, or what will be, and ends what is silenced. It may
// be called more than once.
func (s *Strike) Release() { s.once.Do(func() { close(s.released) }) }

// Disarm takes the fault back, unless its execution has come.
func (s *Strike) Disarm() {
	s.wire.mu.Lock()
	defer s.wire.mu.Unlock()
	s.wire.armed = slices.DeleteFunc(s.wire.armed, func(o *Strike) bool { return o == s })
}

// keeps reports whether what is struck passes in the end.
func (s *Strike) keeps() bool { return s.fault.Do == Hold || s.fault.Do == Delay }

// execution is one of a statement, as strikes see it.
type execution struct {
	Execution
	carrier []byte   // the message that holds its parameters
	before  []string // what its transaction executed before it
}

func (s *Strike) means(e execution) bool {
	f := s.fault
	return strings.Contains(e.Text, f.Statement) &&
		strings.HasPrefix(e.Purpose, f.Purpose) &&
		bytes.Contains(e.carrier, []byte(f.Bytes)) &&
		(f.Within == "" || slices.ContainsFunc(e.before, func(text string) bool { return strings.Contains(text, f.Within) }))
}

// meet notes an execution and returns the strikes that it sets off.
func (w *Wire) meet(e execution) (off []*Strike) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.records {
		r.add(e.Execution)
	}
	w.armed = slices.DeleteFunc(w.armed, func(s *Strike) bool {
		if !s.means(e) {
			return false
		}
		if s.seen++; s.seen < s.fault.Nth {
			return false
		}
		off = append(off, s)
		return true
	})
	return off
}
