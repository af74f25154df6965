package filter

import (
	"time"
	"unicode/utf8"

	"github.com/google/cel-go/cel"
)

// What filters take is counted, not measured: a measured time would charge one
// tenant for what another keeps the processor busy with, and say another thing in
// each run. The figures are those of a core that decodes 160 KiB of data in 2 ms, and
// rather too high.
const (
	stepWork  = 500 * time.Nanosecond // of an evaluation
	matchWork = 2 * time.Microsecond  // of beginning one
	byteWork  = 15 * time.Nanosecond  // of data that is decoded
	// Of compiling: for each word and sign, byte, letter that is not ASCII's, and
	// instruction of a pattern.
	compileWork     = 100 * time.Microsecond
	tokenWork       = 15 * time.Microsecond
	letterWork      = 500 * time.Nanosecond
	foreignWork     = 12 * time.Microsecond
	instructionWork = time.Microsecond
)

// What a filter weighs, in bytes: at least this, and for each letter, node of its
// tree and instruction of its patterns. A class of letters in a pattern that is
// anchored weighs most.
const (
	filterWeight      = 4096
	letterWeight      = 4
	nodeWeight        = 256
	instructionWeight = 400
)

// Weight is about how many bytes of memory the filter holds, and rarely less.
func (f *Filter) Weight() int { return f.weight }

func weigh(expression string, nodes int, matched *patterns) int {
	return filterWeight + letterWeight*len(expression) + nodeWeight*nodes + instructionWeight*matched.size
}

// Work is the time of a processor that was spent on decoding the data and asking
// filters about it so far.
func (d *Data) Work() time.Duration { return time.Duration(d.work.Load()) }

// worked notes an evaluation.
func (d *Data) worked(details *cel.EvalDetails, err error) {
	steps := uint64(0)
	if details != nil {
		if n := details.ActualCost(); n != nil {
			steps = *n
		}
	}
	if err != nil && (details == nil || steps > maxCost) {
		steps = maxCost
	}
	d.work.Add(int64(matchWork + time.Duration(min(steps, maxCost))*stepWork))
}

// CompileWork is the time of a processor that compiling the expression took; f is
// what came of it, nil when the expression was refused.
func CompileWork(expression string, f *Filter) time.Duration {
	if len(expression) > MaxLength {
		return compileWork
	}
	tokens, _ := glance(expression)
	foreign := 0
	for _, c := range expression {
		if c >= utf8.RuneSelf {
			foreign++
		}
	}
	work := compileWork + time.Duration(tokens)*tokenWork + time.Duration(len(expression))*letterWork + time.Duration(foreign)*foreignWork
	if f != nil {
		work += time.Duration(f.instructions) * instructionWork
	}
	return work
}
