package publish

import (
	"bytes"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/posthorn/posthorn"
)

func parseBinary(headers map[string][]string, body []byte, check check) (Event, error) {
	p := newParser(check)
	defer p.close()
	c := &cloud{p: p, seen: map[string]bool{}}
	for name, values := range headers {
		attribute, ok := strings.CutPrefix(strings.ToLower(name), "ce-")
		if !ok {
			continue
		}
		value, err := headerValue(values)
		switch {
		case err != nil:
			c.seen[attribute] = true
			c.spoil(attribute)
			c.fault(attribute, err.Error())
		case attribute == "datacontenttype" || attribute == "data" || attribute == "data_base64":
			c.fault(attribute, "is no header of the binary mode: the data is the body, and its type is the Content-Type")
		default:
			c.attribute(attribute, value)
		}
	}
	p.read(body)
	if len(bytes.TrimSpace(body)) > 0 {
		var ok bool
		var err error
		c.dataThere = true
		if c.event.Data, ok, err = p.data(place{}); !ok {
			c.skip |= memberData
		}
		if err == nil {
			err = p.end()
		}
		if err != nil {
			return Event{}, malformed(err, body, 1, "/data")
		}
	}
	e := c.finish()
	slices.SortFunc(p.faults.list, func(a, b posthorn.Fault) int { return strings.Compare(a.Pointer, b.Pointer) }) // headers have no order
	return e, p.cloudFaults()
}

// headerValue reads the value of a Ce- header: double-quoted parts are unescaped,
// then one round of percent-decoding (HTTP binding 1.0.2, section 3.1.3.2).
func headerValue(values []string) (string, error) {
	if len(values) != 1 {
		return "", fmt.Errorf("is there %d times; send the header once", len(values))
	}
	plain, err := unquoteHeader(values[0])
	if err != nil {
		return "", err
	}
	decoded, err := url.PathUnescape(plain)
	if err != nil {
		return "", fmt.Errorf("has a %% that two hexadecimal digits do not follow; write it as %%25")
	}
	if !utf8.ValidString(decoded) {
		return "", fmt.Errorf("is not UTF-8 once it is percent-decoded")
	}
	return decoded, nil
}

// unquoteHeader resolves the quoted strings of RFC 9110, section 5.6.4.
func unquoteHeader(s string) (string, error) {
	if !strings.Contains(s, `"`) {
		return s, nil
	}
	var b strings.Builder
	quoted := false
	for i := 0; i < len(s); i++ {
		switch ch := s[i]; {
		case ch == '"':
			quoted = !quoted
		case ch == '\\' && quoted && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		default:
			b.WriteByte(ch)
		}
	}
	if quoted {
		return "", fmt.Errorf("has a quotation mark that is not closed")
	}
	return b.String(), nil
}
