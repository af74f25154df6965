package send

import (
	"bytes"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/posthorn/posthorn"
)

// maxHeaderValue bounds what is kept of one header of an answer, in bytes.
const maxHeaderValue = 256

// classify says what an answer means. Only 2xx acknowledges.
func classify(a *answer) (class posthorn.Class, detail string) {
	switch code := a.status; {
	case code >= 200 && code <= 299:
		return posthorn.ClassOK, ""
	case code == http.StatusSwitchingProtocols:
		return posthorn.ClassProtocol, "it switches to another protocol"
	case code >= 300 && code <= 399 && a.value("location") != "":
		return posthorn.ClassRedirect, redirectDetail(a.value("location"))
	}
	return posthorn.ClassHTTPStatus, ""
}

// redirectDetail names the host that a redirect leads to and no more of it: a
// path or query may hold secrets.
func redirectDetail(location string) string {
	u, err := url.Parse(location)
	switch {
	case err != nil || len(location) > posthorn.MaxURLLength:
		return ""
	case u.Host == "":
		return "to another path of the same host"
	case checkForm(strings.ToLower(u.Hostname()), true) != nil:
		return "to another host"
	}
	return "to " + strings.ToLower(u.Hostname())
}

// headersOf returns the headers that are kept, in order of name.
func headersOf(a *answer) []posthorn.Header {
	var kept []posthorn.Header
	for _, name := range keptHeaders {
		if values := a.values(name); len(values) > 0 {
			kept = append(kept, posthorn.Header{Name: name, Value: headerText(strings.Join(values, ", "))})
		}
	}
	return kept
}

// headerText is [text] for a header's value; nearly every one is fit as it is.
func headerText(value string) string {
	if len(value) <= maxHeaderValue && utf8.ValidString(value) && strings.IndexByte(value, 0) < 0 {
		return value
	}
	return string(text([]byte(value), maxHeaderValue))
}

// retryAfter reads what a 429 or 503 asks for: seconds, or an HTTP date that is
// measured by our own clock. All that is not exactly one such value in the
// future is 0; what goes beyond [posthorn.MaxRetryAfter] is cut to it.
func retryAfter(a *answer, now func() time.Time) time.Duration {
	if a.status != http.StatusTooManyRequests && a.status != http.StatusServiceUnavailable {
		return 0
	}
	values := a.values("retry-after")
	if len(values) != 1 {
		return 0
	}
	value := strings.TrimSpace(values[0])
	var wait time.Duration
	if value != "" && strings.Trim(value, "0123456789") == "" {
		seconds, err := strconv.ParseInt(value, 10, 64)
		if err != nil || seconds > int64(posthorn.MaxRetryAfter/time.Second) {
			return posthorn.MaxRetryAfter // digits only: it can but be too large
		}
		wait = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(value); err == nil {
		wait = at.Sub(now())
	}
	return min(max(wait, 0), posthorn.MaxRetryAfter)
}

// text returns the beginning of b in at most limit bytes, fit to be stored and
// shown as text: valid UTF-8 without NUL. Each byte that is neither becomes
// U+FFFD; a character that the limit cuts is left out.
func text(b []byte, limit int) []byte {
	cut := len(b) > limit
	b = b[:min(len(b), limit)]
	if utf8.Valid(b) && bytes.IndexByte(b, 0) < 0 {
		return bytes.Clone(b)
	}
	out := make([]byte, 0, limit)
	for len(b) > 0 {
		r, size := utf8.DecodeRune(b)
		if r == utf8.RuneError && size == 1 && cut && !utf8.FullRune(b) {
			break
		}
		if r == 0 {
			r = utf8.RuneError
		}
		if len(out)+utf8.RuneLen(r) > limit {
			break
		}
		out = utf8.AppendRune(out, r)
		b = b[size:]
	}
	return out
}
