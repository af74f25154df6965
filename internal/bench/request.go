package bench

import (
	"bytes"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/posthorn/posthorn/internal/proof"
)

const (
	// maxGroups is what the digits of an event type can number.
	maxGroups  = 10_000
	typePrefix = "cases.tasks.bench"
	// numberKey is how the receiver finds an event's number.
	numberKey   = `"n":"`
	numberWidth = 9
	minBodySize = 64
)

// eventType is what the endpoints of a group subscribe to: an open namespace of
// the built-in catalogue. All are equally long, so that a request can be patched.
func eventType(group int) string { return fmt.Sprintf("%s%04d", typePrefix, group) }

// data is a case of about the given size in bytes; its number is patched in.
func data(size int) string {
	var b strings.Builder
	b.WriteString("{" + numberKey + strings.Repeat("0", numberWidth) + `"`)
	for i := 0; size-b.Len() > 100; i++ {
		fmt.Fprintf(&b, `,"task_%02d":{"id":%d,"title":"Sign the lease","due":"2026-05-%02d","done":false}`, i, 59000+i, 1+i%28)
	}
	if pad := size - b.Len() - len(`,"note":""}`); pad >= 0 {
		b.WriteString(`,"note":"` + strings.Repeat("x", pad) + `"`)
	}
	b.WriteByte('}')
	return b.String()
}

// request is how a worker renders its requests; each worker has its own.
type request struct {
	address string
	// render returns the bytes for events first, first+1…, valid until the next call.
	render func(first int) []byte
	// want is the status of success.
	want int
}

// shape is what the events of a backlog have beyond those of a load.
type shape struct {
	members   string // as `,"name":"value"`
	firstType int    // the number of the first group's type
}

// publishing returns a maker of requests to the service. Head and body are
// rendered once; only token, types and numbers are patched.
func publishing(c Config, server string, tokens []string, s shape) func() request {
	host := strings.TrimPrefix(server, "http://")
	path, contentType := "/events", "application/json"
	opening, comma, closing := "", "", ""
	if c.Batch > 1 {
		path, opening, comma, closing = "/events/batch", `{"events":[`, ",", "]}"
	}
	if c.NDJSON {
		path, contentType, opening, comma, closing = "/events/batch", "application/x-ndjson", "", "\n", "\n"
	}
	var body bytes.Buffer
	var offsets []int // where each event's type number begins
	rest := `0000"` + s.members + `,"data":` + data(c.BodySize) + `}`
	body.WriteString(opening)
	for i := range c.Batch {
		if i > 0 {
			body.WriteString(comma)
		}
		body.WriteString(`{"type":"` + typePrefix)
		offsets = append(offsets, body.Len())
		body.WriteString(rest)
	}
	body.WriteString(closing)
	head := fmt.Sprintf("POST %s%s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer ", proof.Base, path, host)
	tail := fmt.Sprintf("\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n", contentType, body.Len())
	whole := head + tokens[0] + tail + body.String()
	toBody := len(whole) - body.Len()
	toNumber := strings.Index(rest, numberKey) + len(numberKey)
	return func() request {
		b := []byte(whole)
		return request{address: host, want: http.StatusAccepted, render: func(first int) []byte {
			copy(b[len(head):], tokens[c.tenantOf(first)])
			for i, at := range offsets {
				at += toBody
				digits(b[at:at+4], s.firstType+c.groupOf(first+i))
				digits(b[at+toNumber:at+toNumber+numberWidth], first+i)
			}
			return b
		}}
	}
}

// relaying returns a maker of requests to the relay, which sends each on to the
// one endpoint: the same bytes as to the service, but for the token.
func relaying(c Config, address string) func() request {
	return func() request {
		r := publishing(c, "http://"+address, []string{"none"}, shape{})()
		r.want = http.StatusOK
		return r
	}
}

// digits writes n in decimal with leading zeros over all of b.
func digits(b []byte, n int) {
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = byte('0' + n%10)
		n /= 10
	}
}

// number reads what digits wrote; -1 when it is not there.
func number(body []byte) int {
	i := bytes.Index(body, []byte(numberKey))
	if i < 0 || len(body) < i+len(numberKey)+numberWidth {
		return -1
	}
	n, err := strconv.Atoi(string(body[i+len(numberKey):][:numberWidth]))
	if err != nil {
		return -1
	}
	return n
}
