package send

import (
	"bufio"
	"io"
	"net/http"
	"net/http/httputil"
	"strconv"
	"strings"
)

// frame finds out how the body ends (RFC 9112, section 6.3). Where the headers
// contradict each other, or say what nobody understands, the body is what has come so
// far, or what comes until the connection ends, and the connection serves no more.
func (a *answer) frame(br *bufio.Reader) {
	a.keep = a.keep && a.persists()
	chunked, odd := a.chunked()
	length, hasLength, oddLength := a.length()
	a.unframed = odd || oddLength && !chunked
	a.keep = a.keep && !a.unframed
	switch {
	case a.status == http.StatusNoContent || a.status == http.StatusNotModified || a.status < 200:
		a.body = strings.NewReader("")
	case chunked:
		a.keep = a.keep && !hasLength && !oddLength && a.minor > 0
		a.body = &chunks{data: httputil.NewChunkedReader(br), br: br}
	case a.unframed || !hasLength:
		a.keep = false
		a.body = br
	default:
		a.body = &sized{br, length}
	}
}

// persists reports whether the answer leaves the connection open: RFC 9112, section 9.3.
func (a *answer) persists() bool {
	persists := a.minor > 0
	for token := range a.tokens("connection") {
		switch token {
		case "close":
			return false
		case "keep-alive":
			persists = true
		}
	}
	return persists
}

// tokens goes through the elements of a header's lists, in lower case.
func (a *answer) tokens(name string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for _, f := range a.fields {
			if f.Name != name {
				continue
			}
			for element := range strings.SplitSeq(f.Value, ",") {
				if !yield(strings.ToLower(strings.Trim(element, " \t"))) {
					return
				}
			}
		}
	}
}

// chunked reports whether the body comes in chunks, and whether it is encoded in
// a way that its end cannot be found. "identity", of HTTP/1.1's first edition, says
// nothing, and neither does an empty element.
func (a *answer) chunked() (chunked, odd bool) {
	last := ""
	for coding := range a.tokens("transfer-encoding") {
		if coding != "" && coding != "identity" {
			last = coding
		}
	}
	return last == "chunked", last != "" && last != "chunked"
}

// length returns the body's length. It may be said several times if it is the same.
func (a *answer) length() (length int64, has, odd bool) {
	for element := range a.tokens("content-length") {
		n, err := strconv.ParseUint(element, 10, 63)
		if err != nil || has && int64(n) != length {
			return 0, false, true
		}
		length, has = int64(n), true
	}
	return length, has, false
}

// sized is a body whose length is known. It ends with io.EOF if it came whole.
type sized struct {
	br   *bufio.Reader
	left int64
}

func (s *sized) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	n, err := s.br.Read(p[:min(int64(len(p)), s.left)])
	s.left -= int64(n)
	if err == io.EOF && s.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// chunks is a body in chunks. It ends with io.EOF once the trailer was read, which
// says nothing to us.
type chunks struct {
	data io.Reader
	br   *bufio.Reader
}

func (b *chunks) Read(p []byte) (int, error) {
	n, err := b.data.Read(p)
	if err != io.EOF {
		return n, err
	}
	for range maxHeadLines {
		line, err := b.br.ReadSlice('\n')
		switch {
		case err == io.EOF:
			return n, io.ErrUnexpectedEOF
		case err != nil:
			return n, err
		case isEnd(line):
			return n, io.EOF
		}
	}
	return n, errHeadTooLong
}
