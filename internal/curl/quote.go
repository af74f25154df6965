package curl

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// steering returns the length of the character that s begins with, and whether a
// terminal would act on it rather than show it: C0, DEL, C1, marks of direction, broken
// UTF-8. A line break is no such one.
func steering(s string) (length int, yes bool) {
	r, n := utf8.DecodeRuneInString(s)
	return n, r == utf8.RuneError && n == 1 || r != '\n' && !unicode.IsGraphic(r)
}

// plain reports whether nothing in b steers a terminal.
func plain(b []byte) bool { return run(string(b), false) == len(b) }

// word makes one word of a POSIX shell of any text without NUL. What steers a terminal
// is made by printf when the command runs. A line break stays one: the shell would cut
// it off the end of what a command prints.
func word(s string) string {
	if s == "" {
		return "''"
	}
	var b strings.Builder
	for s != "" {
		if n := run(s, false); n > 0 {
			b.WriteString(quoted(s[:n]))
			s = s[n:]
		}
		if n := run(s, true); n > 0 {
			b.WriteString(`"$(printf '` + octal(`\`, s[:n]) + `')"`)
			s = s[n:]
		}
	}
	return b.String()
}

// run is the length of what s begins with that steers a terminal, or does not.
func run(s string, steer bool) int {
	at := 0
	for at < len(s) {
		n, yes := steering(s[at:])
		if yes != steer {
			break
		}
		at += n
	}
	return at
}

func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// piece is how many bytes of a body stand on a line. A byte takes five characters at
// most, so a line stays below 1024: a terminal cuts longer ones when they are pasted
// into a shell that has no line editor (1024 on macOS, 4096 on Linux).
const piece = 200

// printed are the lines of a shell that print b, byte for byte, with its own printf.
func printed(b []byte) string {
	var out strings.Builder
	for len(b) > 0 {
		n := cut(b)
		out.WriteString(printf(b[:n]))
		b = b[n:]
	}
	return out.String()
}

// cut is the length of the first piece of b: it ends with a whole character.
func cut(b []byte) int {
	if len(b) <= piece {
		return len(b)
	}
	for n := piece; n > piece-utf8.UTFMax; n-- {
		if utf8.RuneStart(b[n]) {
			return n
		}
	}
	return piece // it is no UTF-8, and each byte is escaped
}

// printf prints a piece as it is, or from escapes if a terminal would act on it. Behind
// %b an octal escape has a 0 more than in a format (POSIX, printf).
func printf(b []byte) string {
	if plain(b) {
		return "printf %s " + quoted(string(b)) + "\n"
	}
	var out strings.Builder
	for s := string(b); s != ""; {
		n, steers := steering(s)
		switch c := s[:n]; {
		case c == "\\":
			out.WriteString(`\\`)
		case steers:
			out.WriteString(octal(`\0`, c))
		default:
			out.WriteString(c)
		}
		s = s[n:]
	}
	return "printf %b " + quoted(out.String()) + "\n"
}

// octal writes each byte of s as an escape of three digits.
func octal(escape, s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		fmt.Fprintf(&b, "%s%03o", escape, c)
	}
	return b.String()
}
