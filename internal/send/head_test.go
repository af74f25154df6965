package send

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// said is a connection on which an answer came that was cut off or complete.
type said struct {
	net.Conn
	io.Reader
}

func (s said) Read(p []byte) (int, error) { return s.Reader.Read(p) }

// What net/http takes for an answer is the same answer to us: status, headers,
// body, and whether the connection goes on.
func FuzzHead(f *testing.F) {
	for _, answer := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nServer: x\r\nserver: y\r\n\r\nok",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nA: b\r\n\r\nrest",
		"HTTP/1.0 500 Oh\r\nConnection: Keep-Alive, x\r\nRetry-After: 5\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 204 No\r\nConnection: close\r\n\r\n", "HTTP/1.1 302\nLocation: /x\n\n", "HTTP/1.1 200 OK\r\nServer: a\r\n\tb\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 304 Not\r\nContent-Length: 9\r\n\r\n",
	} {
		f.Add([]byte(answer))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(b)), nil)
		switch {
		case err != nil || resp.ProtoMajor != 1 || resp.ProtoMinor > 1 || resp.StatusCode < 200:
			return
		case len(b) > maxHead || bytes.Count(b, []byte("\n")) > maxHeadLines:
			return
		case bytes.Contains(b, []byte(" :")) || bytes.Contains(b, []byte("\t:")):
			return // net/http takes the space for a part of the name
		}
		c := newConn(said{Reader: bytes.NewReader(b)}, nil, 1, "")
		c.left = maxHead
		a, err := readOne(c)
		if err != nil {
			t.Fatalf("%q: %v, and net/http reads it", b, err)
		}
		if a.status != resp.StatusCode {
			t.Errorf("%q: status %d, want %d", b, a.status, resp.StatusCode)
		}
		for _, name := range keptHeaders {
			if got, want := a.values(name), resp.Header.Values(name); strings.Join(got, "|") != strings.Join(want, "|") {
				t.Errorf("%q: %s is %q, want %q", b, name, got, want)
			}
		}
		if a.minor == 0 && len(a.values("transfer-encoding")) > 0 {
			return // net/http does not look for chunks there
		}
		body, bodyErr := io.ReadAll(a.body)
		want, wantErr := io.ReadAll(resp.Body)
		if wantErr == nil && (bodyErr != nil || !bytes.Equal(body, want)) {
			t.Errorf("%q: body %q (%v), want %q (%v)", b, body, bodyErr, want, wantErr)
		}
		if a.keep && (resp.Close || resp.ContentLength < 0 && resp.TransferEncoding == nil) {
			t.Errorf("%q: the connection is kept", b)
		}
	})
}
