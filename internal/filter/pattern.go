package filter

import (
	"errors"
	"regexp"
	"regexp/syntax"
)

const (
	// maxPattern bounds a pattern, in bytes, and maxProgram the instructions that
	// it becomes.
	maxPattern = 256
	maxProgram = 1000
	// maxPrograms bounds the instructions of all patterns of an expression.
	maxPrograms = 1500
)

// pattern is a pattern that was compiled.
type pattern struct {
	*regexp.Regexp
	size int // of the program
}

// patterns are those of one expression by their text: one that stands in it often
// is compiled and kept once.
type patterns struct {
	by         map[string]*pattern
	size, most int // of all programs
}

// add compiles a pattern, if it and all before it stay small. How large it will be
// is found before it is made.
func (of *patterns) add(text string) error {
	if of.by[text] != nil {
		return nil
	}
	if len(text) > maxPattern {
		return errors.New("is a pattern of more than 256 bytes")
	}
	tree, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return errors.New("is no valid pattern (RE2 syntax)")
	}
	n := max(programSize(tree), 1)
	if n > maxProgram {
		return errors.New("is a pattern that repeats too much")
	}
	if of.size+n > of.most {
		return errors.New("makes the patterns of this filter too large together; use fewer or shorter ones, with less repetition")
	}
	re, err := regexp.Compile(text)
	if err != nil {
		return errors.New("is no valid pattern (RE2 syntax)")
	}
	of.by[text] = &pattern{re, n}
	of.size += n
	return nil
}

// programSize is about how many instructions the tree becomes; never much less.
func programSize(t *syntax.Regexp) int {
	n := 1
	if t.Op == syntax.OpLiteral {
		n = len(t.Rune)
	}
	if t.Op == syntax.OpCharClass {
		n = 1 + len(t.Rune)/16 // a large class takes longer to look through
	}
	for _, sub := range t.Sub {
		n += programSize(sub)
	}
	if t.Op == syntax.OpRepeat {
		n *= max(t.Min, t.Max, 1)
	}
	return min(n, 1<<20)
}
