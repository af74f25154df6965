package verdict

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/posthorn/posthorn/webhook"
)

// altered looks for the body that was sent among what the one that is here may
// have been made of.
func (j *judge) altered() *Verdict {
	for _, c := range variants(j.Body) {
		for i, key := range j.keys {
			if !j.matches(mac(key, j.prefix(), c.body)) {
				continue
			}
			v := say(AlteredBody, fmt.Sprintf("The body was altered: the signature fits when %s (%d bytes were sent, %d are here).", c.how, len(c.body), len(j.Body)),
				"Verify the raw bytes before anything parses or prints them: "+frameworks)
			v.Secret = i + 1
			return v
		}
	}
	return nil
}

const frameworks = "express.raw, await request.body(), request.raw_post, php://input, io.ReadAll."

// variant is a body that may have been sent.
type variant struct {
	how  string
	body []byte
}

// variants undoes what editors, shells and JSON libraries do to a body.
func variants(body []byte) []variant {
	var all []variant
	add := func(how string, b []byte) {
		if b != nil && !bytes.Equal(b, body) {
			all = append(all, variant{how, b})
		}
	}
	add("the line break at its end is taken away (echo and editors add one)", bytes.TrimSuffix(bytes.TrimSuffix(body, []byte("\n")), []byte("\r")))
	add("a line break is added to its end", append(slices.Clone(body), '\n'))
	add("the white space around it is taken away", bytes.TrimSpace(body))
	add("the byte order mark before it is taken away", bytes.TrimPrefix(body, []byte("\xef\xbb\xbf")))
	add("its line breaks are those of Unix", bytes.ReplaceAll(body, []byte("\r\n"), []byte("\n")))
	add("its line breaks are those of Windows", bytes.ReplaceAll(body, []byte("\n"), []byte("\r\n")))
	add("the bytes that are not UTF-8 are what they were", latin1(body))
	for _, form := range serialised(body) {
		add(form.how, form.body)
	}
	return all
}

// latin1 undoes the reading of UTF-8 as Latin-1; nil if that cannot be.
func latin1(body []byte) []byte {
	var b []byte
	for _, r := range string(body) {
		if r > 0xff {
			return nil
		}
		b = append(b, byte(r))
	}
	return b
}

// serialised are the forms in which libraries write what the body says.
func serialised(body []byte) []variant {
	v := jsontext.Value(bytes.TrimSpace(body)).Clone()
	keep := []jsontext.Options{jsontext.PreserveRawStrings(true), jsontext.AllowDuplicateNames(true)}
	if v.Compact(keep...) != nil {
		return nil
	}
	// Where JSON was written anew, its own envelope was written in this order.
	bases := []variant{{"the white space between its members is taken away", v}}
	if e := envelope(v); e != nil {
		bases = append(bases, variant{"its members are in the order in which they were sent", e})
	}
	var all []variant
	for _, base := range bases {
		all = append(all, base)
		for _, escapes := range []struct {
			how string
			fn  func([]byte) []byte
		}{
			{" and its slashes are escaped", func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("/"), []byte(`\/`)) }},
			{" and its slashes are not escaped", func(b []byte) []byte { return bytes.ReplaceAll(b, []byte(`\/`), []byte("/")) }},
			{" and its letters are escaped (\\u00e9)", func(b []byte) []byte { return ascii(b) }},
			{" and its letters are not escaped (é)", func(b []byte) []byte { return reformat(b, jsontext.PreserveRawStrings(false)) }},
			{" and <, > and & are escaped", func(b []byte) []byte {
				return []byte(strings.NewReplacer("<", `\u003c`, ">", `\u003e`, "&", `\u0026`).Replace(string(b)))
			}},
			{" and it has spaces behind colons and commas", func(b []byte) []byte {
				return reformat(b, append(keep, jsontext.SpaceAfterColon(true), jsontext.SpaceAfterComma(true))...)
			}},
			{" and it is indented by two spaces", func(b []byte) []byte { return indent(b, "  ") }},
			{" and it is indented by four spaces", func(b []byte) []byte { return indent(b, "    ") }},
		} {
			if b := escapes.fn(slices.Clone(base.body)); b != nil {
				all = append(all, variant{base.how + escapes.how, b})
			}
		}
	}
	return all
}

func reformat(b []byte, options ...jsontext.Options) []byte {
	v := jsontext.Value(b)
	if v.Format(append([]jsontext.Options{jsontext.AllowDuplicateNames(true)}, options...)...) != nil {
		return nil
	}
	return v
}

func indent(b []byte, by string) []byte {
	return reformat(b, jsontext.PreserveRawStrings(true), jsontext.WithIndent(by))
}

// ascii writes what is not ASCII as \u escapes, as Python and PHP do.
func ascii(b []byte) []byte {
	var out []byte
	for _, r := range string(b) {
		switch {
		case r < 0x80:
			out = append(out, byte(r))
		case r > 0xffff:
			r -= 0x10000
			out = fmt.Appendf(out, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
	}
	return out
}

// sent is the beginning of every body that Posthorn sends; data follows.
type sent struct {
	ID        jsontext.Value `json:"id"`
	Type      jsontext.Value `json:"type"`
	Timestamp jsontext.Value `json:"timestamp"`
	Data      jsontext.Value `json:"data"`
}

func readEnvelope(body []byte) (s sent, ok bool) {
	err := json.Unmarshal(body, &s, json.RejectUnknownMembers(true), jsontext.AllowDuplicateNames(true))
	return s, err == nil && s.ID != nil && s.Type != nil && s.Timestamp != nil && s.Data != nil
}

// envelope writes the members in the order in which Posthorn does; nil for a body
// that is not Posthorn's.
func envelope(body []byte) []byte {
	s, ok := readEnvelope(body)
	if !ok {
		return nil
	}
	return fmt.Appendf(nil, `{"id":%s,"type":%s,"timestamp":%s,"data":%s}`, s.ID, s.Type, s.Timestamp, s.Data)
}

// suspectBody finds signs of an altered body that prove nothing about the
// signature; nil for none.
func (j *judge) suspectBody() *Verdict {
	if n, err := strconv.Atoi(j.Header.Get("Content-Length")); err == nil && n != len(j.Body) {
		return say(AlteredBody, fmt.Sprintf("The body was altered: %d bytes were sent, by Content-Length, and %d are here.", n, len(j.Body)),
			"Verify the raw bytes: "+frameworks)
	}
	s, ok := readEnvelope(j.Body)
	posthorn := strings.HasPrefix(j.id, "evt_") || j.Header.Get("posthorn-delivery") != ""
	switch {
	case len(j.Body) == 0:
		return say(AlteredBody, "There is no body.", "Something read it before; verify before anything else does.")
	case ok && string(s.ID) != strconv.Quote(j.id):
		return say(AlteredBody, fmt.Sprintf("The body is that of another event: its id is %s, and %s says %s.", s.ID, webhook.HeaderID, j.id),
			"Take headers and body of one request.")
	case ok && posthorn && !bytes.Equal(envelope(j.Body), j.Body):
		return say(AlteredBody, `The body was written anew: Posthorn sends {"id":…,"type":…,"timestamp":…,"data":…} in this order and without spaces between them.`,
			"Verify the raw bytes before anything parses them: "+frameworks)
	case !ok && posthorn:
		return say(AlteredBody, "The body is not what Posthorn sends: a JSON object with id, type, timestamp and data.", "Something before the receiver rewrites bodies, or this is not the body of this request.")
	}
	return nil
}
