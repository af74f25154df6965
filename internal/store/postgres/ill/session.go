package ill

import "strings"

// session is what the wire knows of a connection's statements: a node names them
// once, and then has them executed by name.
type session struct {
	statements map[string]string
	portals    map[string]portal
}

// portal is a statement with parameters.
type portal struct {
	text string
	bind []byte
}

func newSession() session { return session{map[string]string{}, map[string]portal{}} }

// hear follows what the node sends. ok says that it has a statement executed: text,
// with the parameters that carrier holds.
func (s *session) hear(m message) (said string, carrier []byte, ok bool) {
	switch m.kind {
	case parse:
		name, rest := text(m.body())
		s.statements[name], _ = text(rest)
	case bind:
		name, rest := text(m.body())
		statement, _ := text(rest)
		s.portals[name] = portal{s.statements[statement], m.bytes}
	case closing:
		name, _ := text(m.body()[1:])
		if m.body()[0] == 'S' {
			delete(s.statements, name)
		} else {
			delete(s.portals, name)
		}
	case execute:
		name, _ := text(m.body())
		return s.portals[name].text, s.portals[name].bind, true
	case query:
		said, _ = text(m.body())
		return said, m.bytes, true
	}
	return "", nil, false
}

// begins reports whether a statement begins a transaction.
func begins(statement string) bool {
	first, _, _ := strings.Cut(strings.TrimSpace(statement), " ")
	return strings.EqualFold(strings.TrimRight(first, ";"), "BEGIN") || strings.EqualFold(first, "START")
}
