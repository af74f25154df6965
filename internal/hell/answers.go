package hell

import (
	"bytes"
	"compress/gzip"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/posthorn/posthorn"
)

// Row is a receiver that answers a request, and what an attempt at it must come
// to. It answers every connection's first request only.
type Row struct {
	Name   string
	Answer string
	Then   func(net.Conn) // before the connection closes
	Class  posthorn.Class
	Status int
	Note   string // BodyNote
	Detail string
}

// Serve reads one request, answers and closes.
func (row *Row) Serve(r *Receiver, c net.Conn) {
	Once(func(c net.Conn) {
		io.WriteString(c, row.Answer)
		if row.Then != nil {
			row.Then(c)
		}
	})(r, c)
}

const ok = "HTTP/1.1 200 OK\r\n"

var (
	bulk = strings.Repeat("x", 100<<10)
	much = []byte(bulk)
)

// Bomb is 200 KB that inflate to 200 MB: the same member of a gzip file (RFC 1952,
// section 2.2) 200 times, for compressing all of it would take each process that
// imports this package a second, and half a minute under the race detector.
var Bomb = func() string {
	var b bytes.Buffer
	w, _ := gzip.NewWriterLevel(&b, gzip.BestCompression)
	w.Write(make([]byte, 1<<20))
	w.Close()
	return strings.Repeat(b.String(), 200)
}()

// Answers is what receivers answer, good and hostile.
var Answers = []Row{
	{Name: "200", Answer: ok + "Content-Length: 2\r\n\r\nok", Status: 200},
	{Name: "200 without length", Answer: ok + "\r\nok", Status: 200},
	{Name: "202", Answer: "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n", Status: 202},
	{Name: "299", Answer: "HTTP/1.1 299 Hm\r\nContent-Length: 0\r\n\r\n", Status: 299},
	{Name: "HTTP/1.0", Answer: "HTTP/1.0 200 OK\r\n\r\nok", Status: 200},
	{Name: "204 with a body", Answer: "HTTP/1.1 204 No Content\r\n\r\nthere is content", Status: 204},
	{Name: "length too long", Answer: ok + "Content-Length: 100\r\n\r\nshort", Status: 200, Note: "error"},
	{Name: "length too short", Answer: ok + "Content-Length: 2\r\n\r\nlonger", Status: 200},
	{Name: "bad chunks", Answer: ok + "Transfer-Encoding: chunked\r\n\r\nzz\r\nno", Status: 200, Note: "error"},
	{Name: "cut chunks", Answer: ok + "Transfer-Encoding: chunked\r\n\r\n5\r\nab", Status: 200, Note: "error"},
	{Name: "good chunks", Answer: ok + "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", Status: 200},
	{Name: "dripping body", Answer: ok + "\r\n", Then: func(c net.Conn) { Drip(c, "x", 50*time.Millisecond) }, Status: 200, Note: "timeout"},
	{Name: "body that never comes", Answer: ok + "Content-Length: 5\r\n\r\n", Then: Stall, Status: 200, Note: "timeout"},
	{Name: "endless body", Answer: ok + "\r\n", Then: func(c net.Conn) { Flood(c, much) }, Status: 200, Note: "truncated"},
	{Name: "gzip is not inflated", Answer: ok + "Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x8b", Status: 200},
	{Name: "gzip bomb", Answer: ok + "Content-Encoding: gzip\r\nContent-Length: " + strconv.Itoa(len(Bomb)) + "\r\n\r\n" + Bomb, Status: 200, Note: "truncated"},
	{Name: "endless chunk", Answer: ok + "Transfer-Encoding: chunked\r\n\r\nffffffffffffff\r\n", Then: func(c net.Conn) { Flood(c, much) }, Status: 200, Note: "truncated"},
	{Name: "chunk size without end", Answer: ok + "Transfer-Encoding: chunked\r\n\r\n1;" + bulk, Then: func(c net.Conn) { Flood(c, much) }, Status: 200, Note: "error"},
	{Name: "endless trailers", Answer: ok + "Transfer-Encoding: chunked\r\n\r\n0\r\n", Then: func(c net.Conn) { Flood(c, []byte("A: b\r\n")) }, Status: 200, Note: "error"},
	{Name: "half-close", Answer: ok + "\r\nok", Then: func(c net.Conn) { c.(interface{ CloseWrite() error }).CloseWrite(); Stall(c) }, Status: 200},
	{Name: "line feeds only", Answer: "HTTP/1.1 200 OK\nContent-Length: 2\n\nok", Status: 200},
	{Name: "100 first", Answer: "HTTP/1.1 100 Continue\r\n\r\n" + ok + "Content-Length: 0\r\n\r\n", Status: 200},
	{Name: "103 first", Answer: "HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" + ok + "Content-Length: 0\r\n\r\n", Status: 200},

	// The status line and the end of the headers came: the status counts, whatever else is odd.
	{Name: "two lengths", Answer: ok + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", Then: Stall, Status: 200},
	{Name: "two lengths in one line", Answer: ok + "Content-Length: 1, 2\r\n\r\nab", Then: Stall, Status: 200},
	{Name: "the same length twice", Answer: ok + "Content-Length: 2\r\nContent-Length: 2\r\n\r\nab", Status: 200},
	{Name: "negative length", Answer: ok + "Content-Length: -1\r\n\r\n", Then: Stall, Status: 200},
	{Name: "empty length", Answer: ok + "Content-Length:\r\n\r\n", Then: Stall, Status: 200},
	{Name: "length of letters", Answer: ok + "Content-Length: none\r\n\r\nab", Then: Stall, Status: 200},
	{Name: "length beyond 64 bits", Answer: ok + "Content-Length: 99999999999999999999999\r\n\r\nab", Then: Stall, Status: 200},
	{Name: "length with a plus", Answer: ok + "Content-Length: +2\r\n\r\nab", Then: Stall, Status: 200},
	{Name: "length in hexadecimal", Answer: ok + "Content-Length: 0x2\r\n\r\nab", Then: Stall, Status: 200},
	{Name: "length and chunks", Answer: ok + "Content-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", Then: Stall, Status: 200},
	{Name: "encoding identity", Answer: ok + "Transfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nok", Status: 200},
	{Name: "encoding gzip", Answer: ok + "Transfer-Encoding: gzip\r\n\r\n\x1f\x8b", Then: Stall, Status: 200},
	{Name: "encoding that nobody knows", Answer: ok + "Transfer-Encoding: xchunked\r\nContent-Length: 2\r\n\r\nok", Then: Stall, Status: 200},
	{Name: "empty encoding", Answer: ok + "Transfer-Encoding:\r\nContent-Length: 2\r\n\r\nok", Status: 200},
	{Name: "gzip in chunks", Answer: ok + "Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n\x1f\x8b\r\n0\r\n\r\n", Status: 200},
	{Name: "chunked twice", Answer: ok + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", Status: 200},
	{Name: "chunks in HTTP/1.0", Answer: "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", Then: Stall, Status: 200},
	{Name: "NUL in a header", Answer: ok + "X: a\x00b\r\nContent-Length: 0\r\n\r\n", Status: 200},
	{Name: "bare CR in a header", Answer: ok + "X: a\rb\r\nContent-Length: 0\r\n\r\n", Status: 200},
	{Name: "missing colon", Answer: ok + "X\r\nContent-Length: 0\r\n\r\n", Then: Stall, Status: 200},
	{Name: "header without a name", Answer: ok + ": x\r\nContent-Length: 0\r\n\r\n", Status: 200},
	{Name: "header name in UTF-8", Answer: ok + "X-Größe: 5\r\nContent-Length: 0\r\n\r\n", Status: 200},
	{Name: "header name with a space", Answer: ok + "X Trace: 5\r\nContent-Length: 0\r\n\r\n", Status: 200},
	{Name: "space before the colon", Answer: ok + "Content-Length : 2\r\n\r\nok", Status: 200},
	{Name: "folded header", Answer: ok + "X: a\r\n\tb\r\nContent-Length:\r\n 2\r\n\r\nok", Status: 200},
	{Name: "continuation of nothing", Answer: ok + "  x\r\nContent-Length: 0\r\n\r\n", Status: 200},
	{Name: "carriage returns doubled", Answer: "HTTP/1.1 200 OK\r\r\nContent-Length: 2\r\r\n\r\r\nok", Status: 200},
	{Name: "status line without a reason", Answer: "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", Status: 200},
	{Name: "status line with a tab", Answer: "HTTP/1.1 200\tOK\r\nContent-Length: 0\r\n\r\n", Status: 200},
	{Name: "status line with bytes of Latin 1", Answer: "HTTP/1.1 200 D\xe9j\xe0\r\nContent-Length: 0\r\n\r\n", Status: 200},
	{Name: "status line repeated as a header", Answer: ok + ok + "Content-Length: 0\r\n\r\n", Then: Stall, Status: 200},
	{Name: "HTTP/1.2", Answer: "HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n", Status: 200},
	{Name: "an empty line first", Answer: "\r\n" + ok + "Content-Length: 0\r\n\r\n", Status: 200},
	{Name: "500 with an odd length", Answer: "HTTP/1.1 500 Oh\r\nContent-Length: none\r\n\r\noops", Class: posthorn.ClassHTTPStatus, Status: 500},
	{Name: "103 with an odd header", Answer: "HTTP/1.1 103 Early Hints\r\nX\r\n\r\n" + ok + "Content-Length: 0\r\n\r\n", Status: 200},

	{Name: "302", Answer: "HTTP/1.1 302 Found\r\nLocation: https://other.example.com/secret?token=1\r\nContent-Length: 0\r\n\r\n", Class: posthorn.ClassRedirect, Status: 302, Detail: "to other.example.com"},
	{Name: "307 to a path", Answer: "HTTP/1.1 307 T\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n", Class: posthorn.ClassRedirect, Status: 307, Detail: "to another path of the same host"},
	{Name: "301 to garbage", Answer: "HTTP/1.1 301 M\r\nLocation: http://[::1%25lo]/\r\nContent-Length: 0\r\n\r\n", Class: posthorn.ClassRedirect, Status: 301, Detail: "to another host"},
	{Name: "redirect to itself", Answer: "HTTP/1.1 302 Found\r\nLocation: /hooks\r\nContent-Length: 0\r\n\r\n", Class: posthorn.ClassRedirect, Status: 302, Detail: "to another path of the same host"},
	{Name: "308 to the metadata service", Answer: "HTTP/1.1 308 P\r\nLocation: http://169.254.169.254/latest/meta-data/\r\nContent-Length: 0\r\n\r\n", Class: posthorn.ClassRedirect, Status: 308, Detail: "to another host"},
	{Name: "300", Answer: "HTTP/1.1 300 Multiple\r\nContent-Length: 0\r\n\r\n", Class: posthorn.ClassHTTPStatus, Status: 300},
	{Name: "304", Answer: "HTTP/1.1 304 Not Modified\r\n\r\n", Class: posthorn.ClassHTTPStatus, Status: 304},
	{Name: "410", Answer: "HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n", Class: posthorn.ClassHTTPStatus, Status: 410},
	{Name: "429 at once", Answer: "HTTP/1.1 429 Slow\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n", Class: posthorn.ClassHTTPStatus, Status: 429},
	{Name: "503 and garbage", Answer: "HTTP/1.1 503 Busy\r\nRetry-After: 1e99\r\nRetry-After: -5\r\nContent-Length: 0\r\n\r\n", Class: posthorn.ClassHTTPStatus, Status: 503},
	{Name: "500", Answer: "HTTP/1.1 500 Oh\r\nContent-Length: 4\r\n\r\noops", Class: posthorn.ClassHTTPStatus, Status: 500},
	{Name: "099", Answer: "HTTP/1.1 099 Low\r\nContent-Length: 0\r\n\r\n", Class: posthorn.ClassHTTPStatus, Status: 99},
	{Name: "999", Answer: "HTTP/1.1 999 High\r\nContent-Length: 0\r\n\r\n", Class: posthorn.ClassHTTPStatus, Status: 999},
	{Name: "endless failure body", Answer: "HTTP/1.1 500 Oh\r\n\r\n", Then: func(c net.Conn) { Flood(c, much) }, Class: posthorn.ClassHTTPStatus, Status: 500, Note: "truncated"},

	{Name: "101", Answer: "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", Then: Stall, Class: posthorn.ClassProtocol, Status: 101, Detail: "it switches to another protocol"},
	{Name: "endless 1xx", Answer: strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 10_000), Then: Stall, Class: posthorn.ClassProtocol, Detail: "interim answers without end"},
	{Name: "1xx with large headers", Answer: "HTTP/1.1 103 Early\r\nA: b\r\n\r\nHTTP/1.1 103 Early\r\nA: " + bulk, Then: Stall, Class: posthorn.ClassProtocol, Detail: "interim answers without end"},
	{Name: "1xx and close", Answer: "HTTP/1.1 100 Continue\r\n\r\n", Class: posthorn.ClassReset},
	{Name: "1xx and silence", Answer: "HTTP/1.1 100 Continue\r\n\r\n", Then: Stall, Class: posthorn.ClassTimeout},
	{Name: "status 2000", Answer: "HTTP/1.1 2000 OK\r\n\r\n", Class: posthorn.ClassProtocol},
	{Name: "status of letters", Answer: "HTTP/1.1 abc OK\r\n\r\n", Class: posthorn.ClassProtocol},
	{Name: "status of two digits", Answer: "HTTP/1.1 20 OK\r\n\r\n", Class: posthorn.ClassProtocol},
	{Name: "no status", Answer: "HTTP/1.1\r\n\r\n", Class: posthorn.ClassProtocol},
	{Name: "odd headers without end", Answer: ok + "Content-Length:\r\n", Class: posthorn.ClassReset},
	{Name: "empty lines without end", Answer: strings.Repeat("\r\n", 40_000), Then: Stall, Class: posthorn.ClassResponseTooLarge, Detail: "more than 256 lines"},
	{Name: "SSH", Answer: "SSH-2.0-OpenSSH_9.6\r\n", Then: Stall, Class: posthorn.ClassProtocol},
	{Name: "bare HTML", Answer: "<html><body>hello</body></html>", Class: posthorn.ClassProtocol},
	{Name: "HTTP/2", Answer: "HTTP/2.0 200 OK\r\n\r\n", Class: posthorn.ClassProtocol, Detail: "it is not HTTP/1.1"},
	{Name: "HTTP/2 frames", Answer: "\x00\x00\x12\x04\x00\x00\x00\x00\x00" + strings.Repeat("\x00", 18), Class: posthorn.ClassProtocol},
	{Name: "large headers", Answer: ok + "X: " + bulk + "\r\n\r\n", Then: Stall, Class: posthorn.ClassResponseTooLarge, Detail: "more than 64 KiB"},
	{Name: "many headers", Answer: ok + strings.Repeat("A: b\r\n", 20_000) + "\r\n", Then: Stall, Class: posthorn.ClassResponseTooLarge, Detail: "more than 256 lines"},
	{Name: "many headers and silence", Answer: ok + strings.Repeat("A: b\r\n", 2_000), Then: Stall, Class: posthorn.ClassResponseTooLarge, Detail: "more than 256 lines"},
	{Name: "two hundred headers and a body of lines", Answer: ok + strings.Repeat("A: b\r\n", 200) + "\r\n" + strings.Repeat("\n", 2000), Status: 200, Note: "truncated"},
	{Name: "endless line", Answer: bulk, Then: Stall, Class: posthorn.ClassResponseTooLarge, Detail: "more than 64 KiB"},
	{Name: "dripping headers", Answer: ok, Then: func(c net.Conn) { Drip(c, "X: y\r\n", 50*time.Millisecond) }, Class: posthorn.ClassTimeout},
	{Name: "no answer", Then: Stall, Class: posthorn.ClassTimeout},
	{Name: "close", Class: posthorn.ClassReset},
	{Name: "close within headers", Answer: ok + "X: y\r\n", Class: posthorn.ClassReset},
	{Name: "reset", Then: Reset, Class: posthorn.ClassReset},
}
