package api

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// noVersion is a version that nothing has.
const noVersion = -1

// ifMatch documents the header; what is the thing that has the ETag.
func ifMatch(what string) param {
	return param{"If-Match", "Act only if the " + what + " this ETag still, or one of several with commas between; * for any. Else 412: a weak one (W/…) never matches.", stringSchema()}
}

// etagOf is the ETag of a version: a strong one.
func etagOf(version int64) string { return `"` + strconv.FormatInt(version, 10) + `"` }

// precondition is what a request asks for by If-Match (RFC 9110, 13.1.1).
type precondition struct {
	there bool
	any   bool // "*"
	// versions are those that the strong tags name.
	versions []int64
	// What else was named. It matches nothing.
	weak, bare, foreign bool
}

// readIfMatch reads the values of the header. What does not follow the grammar
// matches nothing.
func readIfMatch(values []string) precondition {
	p := precondition{there: len(values) > 0}
	for rest := strings.Join(values, ","); ; {
		rest = strings.TrimLeft(rest, ", \t")
		if rest == "" {
			return p
		}
		var tag string
		tag, rest = cutTag(rest)
		p.add(tag)
	}
}

// cutTag takes the first member off a list of tags. A comma within quotation marks
// belongs to the tag.
func cutTag(list string) (tag, rest string) {
	quoted := false
	end := strings.IndexFunc(list, func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return r == ',' && !quoted
	})
	if end < 0 {
		end = len(list)
	}
	return strings.TrimRight(list[:end], " \t"), list[end:]
}

func (p *precondition) add(tag string) {
	switch v, err := strconv.ParseInt(strings.Trim(tag, `"`), 10, 64); {
	case tag == "*":
		p.any = true
	case strings.HasPrefix(tag, "W/") || strings.HasPrefix(tag, "w/"):
		p.weak = true
	case tag[0] != '"':
		p.bare = true
	case err != nil || v <= 0 || etagOf(v) != tag: // tags are compared byte by byte
		p.foreign = true
	default:
		p.versions = append(p.versions, v)
	}
}

// version is the one that a change is bound to: 0 for any, noVersion for one that
// nothing has. current is asked only where several are named.
func (p *precondition) version(current func() (int64, error)) (int64, error) {
	switch {
	case !p.there || p.any:
		return 0, nil
	case len(p.versions) == 0:
		return noVersion, nil
	case len(p.versions) == 1:
		return p.versions[0], nil
	}
	now, err := current()
	if err == nil && !slices.Contains(p.versions, now) {
		now = noVersion
	}
	return now, err
}

// refusal makes the store's word that the version is another one a 412, which says
// what is wrong with what was asked for: changed, if tags were named that the thing
// may once have had. Other errors stay as they are.
func (p *precondition) refusal(err error, changed string) error {
	if !errors.Is(err, store.ErrVersion) {
		return err
	}
	var why []string
	if len(p.versions) > 0 {
		why = append(why, changed)
	}
	if p.weak {
		why = append(why, `If-Match names a weak ETag (W/"…"), which never matches (RFC 9110, 13.1.1). The service gives strong ones: a proxy that compresses answers (gzip) may have weakened it. Send it without W/, or ask for the answer with Accept-Encoding: identity.`)
	}
	if p.bare {
		why = append(why, `If-Match names an ETag without its quotation marks; send it as it came, such as If-Match: "3".`)
	}
	if p.foreign {
		why = append(why, `If-Match names what is no ETag of this service; send one as it came, such as If-Match: "3". A proxy that compresses answers (gzip) may have changed it: then ask for the answer with Accept-Encoding: identity.`)
	}
	if why == nil {
		why = append(why, `If-Match is empty; send an ETag as it came, such as If-Match: "3", or leave the header out.`)
	}
	return &posthorn.Error{Code: posthorn.PreconditionFailed, Message: strings.Join(why, " ")}
}
