// Package terminal makes text that others wrote fit to be printed: nothing in it steers
// a terminal, hides other text or turns its order around.
package terminal

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Printable replaces each character that is none to be seen by U+FFFD: controls, those
// from 0x80 on too, line ends, and marks of direction.
func Printable(s string) string {
	return strings.Map(func(c rune) rune {
		if c == ' ' || unicode.IsGraphic(c) {
			return c
		}
		return utf8.RuneError
	}, s)
}

// Brief is Printable of the first n characters, with "…" if there are more.
func Brief(s string, n int) string {
	if utf8.RuneCountInString(s) > n {
		s = string([]rune(s)[:n]) + "…"
	}
	return Printable(s)
}

// JSON escapes what is not printable in the strings of a JSON text (RFC 8259, section
// 7). The value stays the same. The text is well-formed, so that outside of strings
// there is nothing of the kind but line feeds.
func JSON(text []byte) []byte {
	out := make([]byte, 0, len(text))
	for len(text) > 0 {
		c, size := utf8.DecodeRune(text)
		switch {
		case c == utf8.RuneError && size == 1:
			out = append(out, `\ufffd`...)
		case c == '\n' || unicode.IsGraphic(c):
			out = append(out, text[:size]...)
		default:
			for _, unit := range utf16.Encode([]rune{c}) {
				out = fmt.Appendf(out, `\u%04x`, unit)
			}
		}
		text = text[size:]
	}
	return out
}

// Lines returns a writer that passes lines of JSON on as [JSON] makes them. What does
// not end with a line feed is kept back.
func Lines(to io.Writer) io.Writer { return &lines{to: to} }

type lines struct {
	to   io.Writer
	rest []byte
}

func (l *lines) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	end := bytes.LastIndexByte(l.rest, '\n') + 1
	if end == 0 {
		return len(p), nil
	}
	_, err := l.to.Write(JSON(l.rest[:end]))
	l.rest = append(l.rest[:0], l.rest[end:]...)
	return len(p), err
}
