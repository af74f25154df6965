package send

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/webhook"
)

// appendHead appends the request up to its body: custom headers first, ours
// last, so that none of ours can be overwritten.
func (c *Client) appendHead(b []byte, t *target, r *Request, at time.Time) []byte {
	b = append(b, "POST "...)
	b = append(b, t.path...)
	b = append(b, " HTTP/1.1\r\n"...)
	b = appendField(b, "Host", t.header)
	for i, h := range r.Headers {
		if posthorn.ReservedHeader(h.Name) || !posthorn.ValidHeaderName(h.Name) || !posthorn.ValidHeaderValue(h.Value) || givenAgain(r.Headers[i+1:], h.Name) {
			continue
		}
		b = appendField(b, h.Name, strings.Trim(h.Value, " \t"))
	}
	b = appendField(b, "User-Agent", c.userAgent)
	b = append(b, "Content-Type: application/json\r\nContent-Length: "...)
	b = strconv.AppendInt(b, int64(len(r.Body)), 10)
	b = append(b, "\r\n"...)
	b = appendField(b, webhook.HeaderID, r.EventRef)
	b = append(b, webhook.HeaderTimestamp+": "...)
	b = strconv.AppendInt(b, at.Unix(), 10)
	b = append(b, "\r\n"+webhook.HeaderSignature+": "...)
	b = webhook.SignWith(b, r.EventRef, at, r.Body, r.Signers...)
	b = append(b, "\r\nposthorn-delivery: "...)
	b = r.Delivery.AppendText(b, posthorn.DeliveryPrefix)
	b = append(b, "\r\nposthorn-attempt: "...)
	b = strconv.AppendInt(b, int64(r.Attempt), 10)
	b = append(b, "\r\n"...)
	b = appendField(b, "posthorn-event-type", r.EventType)
	if r.Test {
		b = append(b, "posthorn-test: true\r\n"...)
	}
	return append(b, "\r\n"...)
}

func appendField(b []byte, name, value string) []byte {
	b = append(b, name...)
	b = append(b, ": "...)
	b = append(b, value...)
	return append(b, "\r\n"...)
}

// givenAgain reports whether a later header has the name, or one that receivers
// cannot tell from it: the last one counts.
func givenAgain(later []posthorn.Header, name string) bool {
	key := posthorn.HeaderKey(name)
	return slices.ContainsFunc(later, func(h posthorn.Header) bool { return posthorn.HeaderKey(h.Name) == key })
}

// keptHeaders are those of an answer that are kept, in order of name: what helps
// to find a request in the receiver's logs, and nothing that may hold secrets.
var keptHeaders = func() []string {
	names := []string{
		"content-type", "date", "retry-after", "server",
		"request-id", "x-request-id", "x-correlation-id", "x-amzn-requestid", "x-amzn-trace-id", "x-amz-cf-id",
		"cf-ray", "x-cloud-trace-context", "x-vercel-id", "fly-request-id", "x-github-request-id",
	}
	slices.Sort(names)
	return names
}()
