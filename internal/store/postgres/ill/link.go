package ill

import (
	"bufio"
	"net"
	"sync"
	"time"
)

// link is one connection of the node. Each direction has a goroutine that takes in
// what comes, so that the wire knows of an answer that it withholds, and one that
// passes it on.
//
// What the server says is numbered by group: a group ends when the server is
// ready for the next query, and what was executed without a transaction of its own
// is committed by then. A node that reads the answers to a pipeline before it
// ends it (by Flush without Sync) would wait for an answer that is struck for ever.
type link struct {
	wire                 *Wire
	node, server         net.Conn
	fromNode, fromServer *bufio.Reader
	purpose              string
	blind                bool // the conversation is not understood, and passes as it is
	session              session
	closed               chan struct{}

	mu       sync.Mutex
	turn     sync.Cond // anything below has changed
	silent   bool      // the wire is
	mute     bool      // this connection was silenced
	gone     bool      // both sides are closed
	ended    bool      // the server ended the connection
	requests []message // from the node, to pass on
	answers  []message // from the server, to pass on
	asked    int       // groups that the node has asked for in full
	answered int       // groups whose answer has come
	passed   int       // groups whose answer was passed on
	executed int       // statements of the group that the node is asking for, but for a simple query
	done     int       // statements of the group that is being answered that are, in full
	failed   bool      // one of them has, and the rest of the group is skipped
	owed     int       // groups that must have been, before the node may end the connection
	due      map[int][]*Strike
	left     bool      // the node gave the connection up
	struck   []*Strike // whose Left is to be closed then
	inside   []string  // what the transaction under way has executed
}

func newLink(w *Wire, node, server net.Conn) *link {
	l := &link{
		wire: w, node: node, server: server, fromNode: bufio.NewReaderSize(node, 16<<10), fromServer: bufio.NewReaderSize(server, 16<<10),
		session: newSession(), closed: make(chan struct{}), due: map[int][]*Strike{},
	}
	l.turn.L = &l.mu
	return l
}

// run passes everything until the connection ends.
func (l *link) run() {
	defer l.close()
	if !l.start() {
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() { l.listen(l.fromNode, &l.requests, l.leave) })
	wg.Go(func() { l.listen(l.fromServer, &l.answers, l.number) })
	wg.Go(l.passRequests)
	wg.Go(l.passAnswers)
	wg.Wait()
}

// close breaks the connection, on both sides.
func (l *link) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gone {
		return
	}
	l.gone = true
	l.node.Close()
	l.server.Close()
	close(l.closed)
	l.turn.Broadcast()
}

func (l *link) quiet(silent bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.silent = silent
	l.turn.Broadcast()
}

// free waits until something may pass, and reports whether it ever may.
func (l *link) free() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for !l.gone && (l.silent || l.mute) {
		l.turn.Wait()
	}
	return !l.gone
}

// start passes what comes before the first statement.
func (l *link) start() bool {
	for {
		code, first, err := readStartup(l.fromNode)
		if err != nil || !l.free() {
			return false
		}
		encrypt := code == sslRequest || code == gssEncRequest
		switch {
		case code == cancelRequest:
			l.blind = true
		case !encrypt:
			l.purpose = parameter(first, "application_name")
			l.asked = 1 // the server says when it is ready for the first query
		}
		if _, err := l.server.Write(first); err != nil {
			return false
		}
		if !encrypt {
			return true
		}
		says, err := l.fromServer.ReadByte()
		if err != nil || !l.free() {
			return false
		}
		if _, err := l.node.Write([]byte{says}); err != nil {
			return false
		}
		if says != 'N' {
			l.blind = true
			return true
		}
	}
}

// listen takes in what one side sends.
func (l *link) listen(from *bufio.Reader, to *[]message, note func(*message)) {
	read := readMessage
	if l.blind {
		read = readChunk
	}
	for {
		m, err := read(from)
		if err != nil {
			m = message{kind: end}
		}
		l.mu.Lock()
		note(&m)
		*to = append(*to, m)
		l.turn.Broadcast()
		l.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// number says which group a message of the server's belongs to.
func (l *link) number(m *message) {
	m.group = l.answered
	switch m.kind {
	case commandComplete, emptyQuery, portalSuspended:
		l.done++
	case errorResponse:
		l.failed = true
	case readyForQuery:
		l.answered++
		l.done, l.failed = 0, false
		if m.body()[0] == 'I' && l.answered == l.asked {
			l.inside = nil // no transaction is open, and none is on its way
		}
	case end:
		l.ended = true
	}
}

// leave hears whether the node gives the connection up.
func (l *link) leave(m *message) {
	if m.kind != terminate && m.kind != end {
		return
	}
	l.left = true
	for _, s := range l.struck {
		close(s.left)
	}
	l.struck = nil
}

// next is what is to be passed on; what was before it is flushed before anybody
// waits for it.
func (l *link) next(from *[]message, to *bufio.Writer) (m message, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for flushed := false; ; flushed = true {
		switch {
		case l.gone:
			return message{}, false
		case len(*from) > 0 && !l.silent && !l.mute:
			m, *from = (*from)[0], (*from)[1:]
			return m, true
		case flushed:
			l.turn.Wait()
		default:
			l.mu.Unlock()
			_ = to.Flush() // the writer remembers an error
			l.mu.Lock()
		}
	}
}

func (l *link) passRequests() {
	to := bufio.NewWriter(l.server)
	for {
		m, ok := l.next(&l.requests, to)
		if !ok {
			return
		}
		switch m.kind {
		case end:
			_ = to.Flush()
			l.pay()
			l.close()
			return
		case terminate:
			_ = to.Flush()
			l.pay()
		case raw:
		default:
			if !l.ask(m, to) {
				return
			}
		}
		_, _ = to.Write(m.bytes) // if the server is gone, this is heard from its side
	}
}

// ask has strikes happen to what a message has executed. It reports whether the
// message passes.
func (l *link) ask(m message, to *bufio.Writer) bool {
	said, carrier, executes := l.session.hear(m)
	l.mu.Lock()
	group, earlier := l.asked, l.executed
	switch m.kind {
	case synchronize, query, functionCall:
		l.asked++
		l.executed = 0
	case execute:
		l.executed++
	}
	if !executes {
		l.mu.Unlock()
		return true
	}
	if begins(said) {
		l.inside = nil
	}
	e := execution{Execution{said, l.purpose}, carrier, l.inside}
	l.inside = append(l.inside, said)
	l.mu.Unlock()
	before := true
	for _, s := range l.wire.meet(e) {
		l.mu.Lock()
		if s.keeps() {
			l.owed = max(l.owed, group+1)
		}
		if s.fault.At == Answer {
			l.due[group] = append(l.due[group], s)
		}
		l.mu.Unlock()
		if s.fault.At == Query {
			before = before && l.rest(group, earlier, to) && l.happen(s)
		}
	}
	return before && l.free()
}

// rest waits until the server has done what came before in a group, and all groups
// before it, so that it rests when the next execution is struck. It reports
// whether the connection is still there.
func (l *link) rest(group, earlier int, to *bufio.Writer) bool {
	if earlier > 0 { // the server keeps its answers until it is asked for them
		_, _ = to.Write([]byte{flush, 0, 0, 0, 4})
	}
	_ = to.Flush()
	l.mu.Lock()
	defer l.mu.Unlock()
	for !l.gone && !l.ended && (l.answered < group || !l.failed && l.done < earlier) {
		l.turn.Wait()
	}
	return !l.gone
}

func (l *link) passAnswers() {
	to := bufio.NewWriter(l.node)
	for {
		m, ok := l.next(&l.answers, to)
		if !ok {
			return
		}
		// The node sends what it copies only when it is told to, so this is no answer yet.
		if m.kind != copyInResponse && m.kind != copyBothResponse && !l.answer(m.group, to) {
			return
		}
		if m.kind == end {
			_ = to.Flush()
			l.close()
			return
		}
		_, _ = to.Write(m.bytes) // nobody may be there any more
		if m.kind == readyForQuery {
			_ = to.Flush()
			l.mu.Lock()
			l.passed++
			l.turn.Broadcast()
			l.mu.Unlock()
		}
	}
}

// answer has strikes happen to the answer of a group. It reports whether it passes.
func (l *link) answer(group int, to *bufio.Writer) bool {
	l.mu.Lock()
	due := l.due[group]
	delete(l.due, group)
	l.mu.Unlock()
	if len(due) == 0 {
		return true
	}
	_ = to.Flush()
	l.mu.Lock()
	for !l.gone && !l.ended && l.answered <= group {
		l.turn.Wait()
	}
	whole := l.answered > group
	l.mu.Unlock()
	for _, s := range due {
		if whole && !l.happen(s) {
			return false
		}
	}
	return l.free()
}

// happen has a strike happen. It reports whether what it struck passes after that.
func (l *link) happen(s *Strike) bool {
	l.mu.Lock()
	l.mute = l.mute || s.fault.Do == Silence
	if l.left {
		close(s.left)
	} else {
		l.struck = append(l.struck, s)
	}
	l.mu.Unlock()
	close(s.struck)
	var over <-chan time.Time
	switch s.fault.Do {
	case Drop:
		l.close()
		return false
	case Silence:
		select {
		case <-s.released:
			l.close()
		case <-l.closed:
		}
		return false
	case Delay:
		timer := time.NewTimer(s.fault.For)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-s.released:
	case <-over:
	case <-l.closed:
		return false
	}
	return true
}

// pay waits, when the node ends the connection, until the server has answered what
// was held.
func (l *link) pay() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for !l.gone && !l.ended && l.passed < l.owed {
		l.turn.Wait()
	}
}
