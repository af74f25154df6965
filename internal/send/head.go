package send

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/posthorn/posthorn"
)

// answer is what came back: its status, those of its headers that anybody asks
// for, and how its body ends.
type answer struct {
	status int
	minor  int // of HTTP/1.x
	fields []posthorn.Header
	body   io.Reader
	// keep: the connection may serve again once the body has ended.
	keep bool
	// unframed: what the headers say of the body's end makes no sense.
	unframed bool
}

// values returns a header's values in the order in which they came. The name is in
// lower case, and one of readNames; all others are not kept.
func (a *answer) values(name string) []string {
	var values []string
	for _, f := range a.fields {
		if f.Name == name {
			values = append(values, f.Value)
		}
	}
	return values
}

// value returns a header's first value, "" without one.
func (a *answer) value(name string) string {
	for _, f := range a.fields {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

// readNames are the headers that are read, by their names in lower case.
var readNames = func() map[string]string {
	names := map[string]string{
		"connection": "", "content-length": "", "transfer-encoding": "", "location": "", "proxy-authenticate": "",
	}
	for _, name := range keptHeaders {
		names[name] = ""
	}
	for name := range names {
		names[name] = name
	}
	return names
}()

var (
	notHTTP      = &fault{posthorn.ClassProtocol, "", errors.New("the first line is no status line of HTTP/1")}
	otherVersion = &fault{posthorn.ClassProtocol, "it is not HTTP/1.1", errors.New("the status line is of another version of HTTP")}
)

// readHead reads the answer's status and headers, past interim answers. An answer
// whose status line and end of headers came is one, however odd it is otherwise:
// a receiver that says 200 and repeats a header, or writes its name in UTF-8, has
// taken the event, and would be sent it ten times. What cannot be understood is left
// out, and where it touches the body's end the connection is not kept.
func readHead(c *conn) (*answer, error) {
	for interim := 0; ; interim++ {
		a, err := readOne(c)
		if err != nil {
			return nil, headFault(c, err, interim > 0)
		}
		if a.status < 100 || a.status > 199 || a.status == http.StatusSwitchingProtocols {
			return a, nil
		}
		if interim == maxInterim {
			return nil, &fault{posthorn.ClassProtocol, "interim answers without end", nil}
		}
	}
}

// headFault says why there is no answer. What kept the head from being complete
// counts more than what was thought of its last, cut line; but what is no HTTP at all
// is told as such though the connection ended too.
func headFault(c *conn, err error, informational bool) error {
	if f, ok := errors.AsType[*fault](err); ok && (c.failed == nil || broken(c.failed)) {
		return f
	}
	if c.failed != nil {
		err = c.failed
	}
	return readFault(err, informational)
}

// readOne reads one status line and the headers after it.
func readOne(c *conn) (*answer, error) {
	line, err := readLine(c.br)
	for err == nil && isEnd(line) { // some servers end the answer before with one line too many
		line, err = readLine(c.br)
	}
	if err != nil {
		if !bytes.HasPrefix(line, []byte(begins)) && !bytes.HasPrefix([]byte(begins), line) {
			return nil, notHTTP
		}
		return nil, err
	}
	a := &answer{}
	if err := a.statusLine(line); err != nil {
		return nil, err
	}
	if err := a.headers(c.br); err != nil {
		return nil, err
	}
	a.frame(c.br)
	return a, nil
}

// readLine returns a line with its end. What came is returned beside an error, too.
// The bytes are valid until the next read.
func readLine(br *bufio.Reader) ([]byte, error) {
	line, err := br.ReadSlice('\n')
	if err != bufio.ErrBufferFull {
		return line, err
	}
	long := bytes.Clone(line)
	for err == bufio.ErrBufferFull { // the connection's bound ends it
		line, err = br.ReadSlice('\n')
		long = append(long, line...)
	}
	return long, err
}

// begins is what each answer begins with.
const begins = "HTTP/"

// isEnd reports whether a line is empty, and so ends the headers. A server that
// writes "\r\n" as text on some systems says "\r\r\n".
func isEnd(line []byte) bool { return len(bytes.TrimRight(line, "\r\n")) == 0 }

// statusLine reads "HTTP/1.1 200 OK" (RFC 9112, section 4); the reason may be
// missing, and be anything.
func (a *answer) statusLine(line []byte) error {
	version, rest, _ := bytes.Cut(bytes.TrimRight(line, " \t\r\n"), []byte(" "))
	number, is := bytes.CutPrefix(version, []byte(begins))
	switch {
	case !is:
		return notHTTP
	case len(number) > 0 && number[0] != '1' && isDigit(number[0]):
		return otherVersion
	case len(number) != 3 || number[1] != '.' || !isDigit(number[2]):
		return notHTTP
	}
	a.minor = int(number[2] - '0')
	code := bytes.TrimLeft(rest, " \t")
	if len(code) < 3 || len(code) > 3 && code[3] != ' ' && code[3] != '\t' {
		return notHTTP
	}
	for _, digit := range code[:3] {
		if !isDigit(digit) {
			return notHTTP
		}
		a.status = 10*a.status + int(digit-'0')
	}
	return nil
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// headers reads the lines up to the empty one.
func (a *answer) headers(br *bufio.Reader) error {
	a.keep = true
	open := false // the header before is one of ours, and may go on
	for {
		line, err := readLine(br)
		if err != nil {
			return err
		}
		if isEnd(line) {
			return nil
		}
		if line[0] == ' ' || line[0] == '\t' { // obsolete folding: RFC 9112, section 5.2
			if open {
				last := &a.fields[len(a.fields)-1]
				last.Value = strings.TrimLeft(last.Value+" "+string(bytes.Trim(line, " \t\r\n")), " ")
			}
			continue
		}
		name, value, found := bytes.Cut(line, []byte(":"))
		if !found {
			a.keep = false // whatever it was to be: perhaps a length
		}
		known := known(bytes.TrimRight(name, " \t"))
		if open = found && known != ""; open {
			a.fields = append(a.fields, posthorn.Header{Name: known, Value: string(bytes.Trim(value, " \t\r\n"))})
		}
	}
}

// known returns a header's name in lower case if it is read, else "".
func known(name []byte) string {
	var lower [32]byte
	if len(name) > len(lower) {
		return ""
	}
	for i, c := range name {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		lower[i] = c
	}
	return readNames[string(lower[:len(name)])]
}
