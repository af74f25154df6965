// Package curl writes an HTTP request as a command that a POSIX shell runs.
//
// The command is pasted into a terminal or piped into sh, and what is in it was written
// by others. So three things hold, whatever the text: the request that curl sends has
// these bytes, no character steers the terminal that shows the command, and no text
// becomes a second header, an option of curl, a file's name or a command of the shell.
// What cannot be sent so is refused.
package curl

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/posthorn/posthorn"
)

// Command is a POST request.
type Command struct {
	// Options stand in front of the URL as they are, such as "-sS -i".
	Options string
	URL     string
	// Headers are names and values, in order.
	Headers [][2]string
	// Body may hold any bytes and be of any size: Linux bounds one argument of a
	// command at 128 KiB, so a long body goes to curl through a pipe.
	Body []byte
	// BodyFile names what curl reads in the place of Body when it runs; - is its
	// standard input.
	BodyFile string
	// Wrapped puts each header on a line of its own.
	Wrapped bool
}

// Text is the command, without a line break at its end. The error says what the URL or
// a header holds that curl cannot send; it repeats nothing of a header's value.
func (c Command) Text() (string, error) {
	if err := checkURL(c.URL); err != nil {
		return "", err
	}
	words := []string{"curl " + c.Options + literally(c.URL) + " " + word(c.URL)}
	for _, h := range c.Headers {
		line, err := header(h[0], h[1])
		if err != nil {
			return "", err
		}
		words = append(words, "-H "+word(line))
	}
	data, input := c.data()
	between := " "
	if c.Wrapped {
		between = " \\\n  "
	}
	return input + strings.Join(append(words, "--data-binary "+data), between), nil
}

// data is the argument of --data-binary, and what stands before the command to feed it.
func (c Command) data() (argument, input string) {
	if c.BodyFile != "" {
		return word("@" + c.BodyFile), ""
	}
	if len(c.Body) <= shortBody && !bytes.HasPrefix(c.Body, []byte("@")) && plain(c.Body) {
		return quoted(string(c.Body)), ""
	}
	return "@-", "{\n" + printed(c.Body) + "} | "
}

// shortBody is how long a body may be that stands in one word, on a line as long as
// most terminals are willing to show.
const shortBody = piece

// checkURL refuses what curl would take for something else than the URL of a request:
// an option, a file of URLs, another protocol.
func checkURL(text string) error {
	if strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r == 0x7f }) || !utf8.ValidString(text) {
		return errors.New("the URL holds a space, a control character or broken UTF-8; percent-encode it")
	}
	if u, err := url.Parse(text); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return errors.New("the URL must be one such as http://localhost:3000/hooks")
	}
	return nil
}

// literally are the options that keep curl from reading a pattern or dot segments
// (RFC 3986, 5.2.4) out of a URL.
func literally(url string) (options string) {
	if strings.ContainsAny(url, "[]{}") {
		options += " --globoff"
	}
	if lower := strings.ToLower(url); strings.Contains(lower, "/.") || strings.Contains(lower, "/%2e") {
		options += " --path-as-is"
	}
	return options
}

// header is the argument of -H. curl takes "name:" without a value for the wish to
// leave the header out; "name;" is the form of an empty one.
func header(name, value string) (string, error) {
	switch {
	case !posthorn.ValidHeaderName(name):
		return "", fmt.Errorf("%q is not the name of a header", name)
	case !posthorn.ValidHeaderValue(value):
		return "", fmt.Errorf("the value of %s holds a line break or another control character, which no header can carry", name)
	case strings.Trim(value, " \t") != value:
		return "", fmt.Errorf("the value of %s begins or ends with white space, which is no part of a header (RFC 9110, 5.5)", name)
	case value == "":
		return name + ";", nil
	}
	return name + ": " + value, nil
}
