package ill

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
)

// What follows is of PostgreSQL's documentation, "Frontend/Backend Protocol": a
// message is a byte that says its kind, its length (which counts itself, not the
// kind) and its body. The first message of a node has no kind but a code after
// the length.

// Kinds of messages. A node and the server use some letters for different ones.
const (
	raw byte = 0 // bytes of a conversation that the wire does not understand
	end byte = 1 // the side that sends has ended the connection

	parse        byte = 'P'
	bind         byte = 'B'
	execute      byte = 'E'
	closing      byte = 'C'
	query        byte = 'Q'
	functionCall byte = 'F'
	synchronize  byte = 'S'
	terminate    byte = 'X'
	flush        byte = 'H'

	readyForQuery    byte = 'Z'
	commandComplete  byte = 'C'
	emptyQuery       byte = 'I'
	portalSuspended  byte = 's'
	errorResponse    byte = 'E'
	copyInResponse   byte = 'G'
	copyBothResponse byte = 'W'
)

// Codes of a node's first message; any other is the version of the protocol.
const (
	cancelRequest = 80877102
	sslRequest    = 80877103
	gssEncRequest = 80877104
)

const maxMessage = 1 << 30

var errMessage = errors.New("this is not PostgreSQL's protocol")

// message is one as it passes.
type message struct {
	kind  byte
	bytes []byte // all of it
	group int    // of the server's: which readiness for a query it leads to
}

func (m message) body() []byte { return m.bytes[5:] }

func readMessage(r *bufio.Reader) (message, error) {
	head, err := r.Peek(5)
	if err != nil {
		return message{}, err
	}
	kind, n := head[0], binary.BigEndian.Uint32(head[1:])
	if n < 4 || n > maxMessage {
		return message{}, errMessage
	}
	b := make([]byte, 1+n)
	_, err = io.ReadFull(r, b)
	return message{kind: kind, bytes: b}, err
}

// readChunk reads what has come, of a conversation that is encrypted.
func readChunk(r *bufio.Reader) (message, error) {
	b := make([]byte, 16<<10)
	n, err := r.Read(b)
	return message{kind: raw, bytes: b[:n]}, err
}

// readStartup reads a node's first message, or one that follows a refusal to
// encrypt.
func readStartup(r *bufio.Reader) (code uint32, b []byte, err error) {
	head, err := r.Peek(8)
	if err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head)
	if n < 8 || n > maxMessage {
		return 0, nil, errMessage
	}
	b = make([]byte, n)
	_, err = io.ReadFull(r, b)
	return binary.BigEndian.Uint32(b[4:]), b, err
}

// parameter is one of those that a startup message gives.
func parameter(startup []byte, name string) string {
	for rest := startup[8:]; len(rest) > 0; {
		var key, value string
		key, rest = text(rest)
		value, rest = text(rest)
		if key == name {
			return value
		}
	}
	return ""
}

// text cuts a text that ends with a zero off what follows it.
func text(b []byte) (s string, rest []byte) {
	before, after, _ := bytes.Cut(b, []byte{0})
	return string(before), after
}
