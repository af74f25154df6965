package filter

import (
	"errors"
	"strings"

	"github.com/google/cel-go/common/operators"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
	"github.com/google/cel-go/interpreter"
)

const (
	// maxCompared bounds the values on both sides of a comparison.
	maxCompared = 2000
	// maxMatched bounds instructions times bytes of text: what matching may take.
	maxMatched = 100_000
	// maxConverted bounds a text that becomes a number or a time, in bytes: the
	// error about a long one takes longest to make.
	maxConverted = 128
	// matchedPerCost is how much of that is a step.
	matchedPerCost = 20
	// bytesPerCost is how many bytes of text a step may touch.
	bytesPerCost = 100
)

var (
	errCompared  = errors.New("it compares values that are too large")
	errConverted = errors.New("it converts a text that is too long for that")
	errMatched   = errors.New("it matches a pattern against a text that is too long for it")

	ownErrors = []error{errCompared, errConverted, errMatched}
)

// bounded replaces the steps that could do much work at once by such that first
// look how much it would be.
func (of *patterns) bounded(i interpreter.InterpretableV2) (interpreter.InterpretableV2, error) {
	call, ok := i.(interpreter.InterpretableCall)
	if !ok {
		return i, nil
	}
	switch call.Function() {
	case operators.Equals, operators.NotEquals, operators.In:
		return &comparison{call}, nil
	case "int", "uint", "double", "bool", "timestamp", "duration":
		return &conversion{call}, nil
	case "matches":
		args := call.Args()
		pattern, ok := args[1].(interpreter.InterpretableConst)
		if !ok {
			return nil, errors.New("a pattern must be a literal")
		}
		text, ok := pattern.Value().(types.String)
		if !ok {
			return nil, errors.New("a pattern must be a string")
		}
		p := of.by[string(text)]
		if p == nil {
			return nil, errors.New("a pattern was not judged")
		}
		return &match{call, p}, nil
	}
	return i, nil
}

// comparison is ==, != and in.
type comparison struct{ interpreter.InterpretableCall }

func (c *comparison) Eval(a interpreter.Activation) ref.Val { return c.Exec(interpreter.AsFrame(a)) }

func (c *comparison) Exec(frame *interpreter.ExecutionFrame) ref.Val {
	args := c.Args()
	var values [2]ref.Val
	for i := range values {
		if values[i] = args[i].Exec(frame); types.IsUnknownOrError(values[i]) {
			return values[i]
		}
	}
	left := maxCompared
	if !count(values[0], &left) || !count(values[1], &left) {
		return types.WrapErr(errCompared)
	}
	switch c.Function() {
	case operators.Equals:
		return types.Equal(values[0], values[1])
	case operators.NotEquals:
		return types.Bool(types.Equal(values[0], values[1]) != types.True)
	}
	if m, ok := values[1].(traits.Mapper); ok {
		_, found := m.Find(values[0])
		return types.Bool(found)
	}
	if l, ok := values[1].(traits.Container); ok {
		return l.Contains(values[0])
	}
	return types.NoSuchOverloadErr()
}

// count takes the number of values that v holds from left, and reports false when
// there are more.
func count(v ref.Val, left *int) bool {
	if *left--; *left < 0 {
		return false
	}
	switch v := v.(type) {
	case traits.Mapper:
		for it := v.Iterator(); it.HasNext() == types.True; {
			if !count(v.Get(it.Next()), left) {
				return false
			}
		}
	case traits.Lister:
		for it := v.Iterator(); it.HasNext() == types.True; {
			if !count(it.Next(), left) {
				return false
			}
		}
	}
	return true
}

// conversion is int(…), timestamp(…) and their like.
type conversion struct{ interpreter.InterpretableCall }

func (c *conversion) Eval(a interpreter.Activation) ref.Val { return c.Exec(interpreter.AsFrame(a)) }

func (c *conversion) Exec(frame *interpreter.ExecutionFrame) ref.Val {
	args := c.Args()
	if len(args) != 1 {
		return c.InterpretableCall.Exec(frame)
	}
	v := args[0].Exec(frame)
	if text, ok := v.(types.String); ok && len(text) > maxConverted || types.IsUnknownOrError(v) {
		if ok {
			return types.WrapErr(errConverted)
		}
		return v
	}
	return c.InterpretableCall.Exec(frame)
}

// match is text.matches(pattern).
type match struct {
	interpreter.InterpretableCall
	pattern *pattern
}

func (m *match) Eval(a interpreter.Activation) ref.Val { return m.Exec(interpreter.AsFrame(a)) }

func (m *match) Exec(frame *interpreter.ExecutionFrame) ref.Val {
	args := m.Args()
	v := args[0].Exec(frame)
	if types.IsUnknownOrError(v) {
		return v
	}
	// The pattern is a literal, but the cost is counted by its value.
	if p := args[1].Exec(frame); types.IsUnknownOrError(p) {
		return p
	}
	text, ok := v.(types.String)
	if !ok {
		return types.MaybeNoSuchOverloadErr(v)
	}
	if len(text)*m.pattern.size > maxMatched {
		return types.WrapErr(errMatched)
	}
	return types.Bool(m.pattern.MatchString(string(text)))
}

// CallCost counts a call as one step, and what its texts and comparisons take. It
// implements [interpreter.ActualCostEstimator].
func (of *patterns) CallCost(function, _ string, args []ref.Val, result ref.Val) *uint64 {
	cost := 1 + size(result)
	compares := function == operators.Equals || function == operators.NotEquals || function == operators.In
	left := maxCompared
	for _, a := range args {
		cost += size(a)
		if compares {
			count(a, &left)
		}
	}
	if compares {
		cost += uint64(maxCompared-max(left, 0)) - 2 // two scalars are one step
	}
	switch {
	case function == "matches" && len(args) == 2:
		text, _ := args[0].(types.String)
		pattern, _ := args[1].(types.String)
		if p := of.by[string(pattern)]; p != nil {
			cost += uint64(len(text) * p.size / matchedPerCost)
		}
	case strings.HasPrefix(function, "get") && len(args) == 2: // a time zone is read from a file
		cost += 250
	case function == "timestamp" || function == "duration":
		cost += 5
	}
	return &cost
}

func size(v ref.Val) uint64 {
	switch v := v.(type) {
	case types.String:
		return uint64(len(v) / bytesPerCost)
	case types.Bytes:
		return uint64(len(v) / bytesPerCost)
	}
	return 0
}
