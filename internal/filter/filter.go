// Package filter tells by an expression of a tenant which events an endpoint
// gets. The language is CEL (cel.dev) over two variables: type, the event's type,
// and data, its data.
//
// Expressions are hostile until shown otherwise. CEL has no loops but those over
// lists and maps, and no effects; what is left to bound is work. Each evaluation
// has a budget that counts steps and the bytes that they touch ([maxCost]), loops
// end by the clock too ([maxTime]), and what a single step could do without end,
// comparing what is nested and matching patterns, is bounded before it begins
// (bounded.go).
package filter

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/interpreter"
)

const (
	// MaxLength bounds an expression, in bytes.
	MaxLength = 4096
	// maxCost bounds an evaluation, in steps of some hundred nanoseconds.
	maxCost = 12_000
	// maxTime ends a loop that the budget has missed. It is far above what that
	// lets take, so that what a filter says does not depend on how busy the machine
	// is.
	maxTime = 100 * time.Millisecond
	// maxTokens bounds the words and signs of an expression.
	maxTokens = 600
	// maxNodes bounds its tree, with what macros make of it.
	maxNodes = 4096
	// maxDepth bounds how deep an expression nests.
	maxDepth = 50
)

// Filter is an expression that was compiled. It is immutable and safe for
// concurrent use.
type Filter struct {
	program      cel.Program
	weight       int
	instructions int // of its patterns
}

// environment is made when the first expression is compiled: most services have
// none.
var environment = sync.OnceValues(func() (*cel.Env, error) {
	return cel.NewEnv(
		cel.Variable("type", cel.StringType),
		cel.Variable("data", cel.DynType),
		cel.ParserExpressionSizeLimit(MaxLength),
		cel.ParserRecursionLimit(maxDepth),
		cel.ParserErrorRecoveryLimit(1),
		cel.ExpressionNodeLimit(maxNodes),
	)
})

// Compile reads an expression that a user sets or tries. Its error is a [*Fault] for
// what the user can mend.
func Compile(expression string) (*Filter, error) { return compile(expression, maxPrograms) }

// CompileStored is Compile for an expression that was set before its patterns were
// bounded in sum: it goes on to say what it said. Such a filter may weigh some ten
// megabytes.
func CompileStored(expression string) (*Filter, error) { return compile(expression, math.MaxInt) }

// compile takes patterns of at most so many instructions in all.
func compile(expression string, instructions int) (*Filter, error) {
	switch {
	case len(expression) > MaxLength:
		return nil, &Fault{Detail: fmt.Sprintf("is %d bytes long; at most %d are allowed", len(expression), MaxLength)}
	case !utf8.ValidString(expression) || strings.IndexByte(expression, 0) >= 0:
		return nil, &Fault{Detail: "must be UTF-8 without NUL"}
	case strings.TrimSpace(expression) == "":
		return nil, &Fault{Detail: "is empty; null takes a filter away"}
	}
	if _, err := glance(expression); err != nil {
		return nil, err
	}
	env, err := environment()
	if err != nil {
		return nil, err
	}
	tree, issues := env.Parse(expression)
	if len(issues.Errors()) == 0 {
		tree, issues = env.Check(tree)
	}
	// Of the faults only the first is rendered: for all that takes longer than to
	// find them.
	if all := issues.Errors(); len(all) > 0 {
		return nil, faultOf(all[0])
	}
	if out := tree.OutputType(); !out.IsExactType(types.BoolType) && !out.IsExactType(types.DynType) {
		return nil, &Fault{1, 1, fmt.Sprintf("must say true or false, but is of type %s", out)}
	}
	matched := &patterns{by: map[string]*pattern{}, most: instructions}
	nodes, err := refuse(tree.NativeRep(), matched)
	if err != nil {
		return nil, err
	}
	program, err := env.Program(tree,
		cel.CustomDecoratorV2(matched.bounded), cel.CostTracking(matched), cel.CostLimit(maxCost), cel.InterruptCheckFrequency(8))
	if err != nil {
		return nil, asFault(err)
	}
	return &Filter{program, weigh(expression, nodes, matched), matched.size}, nil
}

// glance refuses what nests too deep and what has too many words and signs,
// before a parser that looks ahead at each of them is asked: it and the checker
// take longer than in proportion. It returns how many there are, up to the fault.
func glance(expression string) (tokens int, fault error) {
	depth, line, column := 0, 1, 0
	var quote, before rune
	escaped := false
	for _, c := range expression {
		column++
		switch {
		case c == '\n':
			line, column = line+1, 0
		case quote != 0:
			if !escaped && c == quote {
				quote = 0
			}
			escaped = !escaped && c == '\\'
		case c == ' ' || c == '\t' || c == '\r':
		case isWord(c):
			if !isWord(before) {
				tokens++
			}
		default:
			tokens++
			switch c {
			case '"', '\'':
				quote = c
			case '(', '[', '{', '?':
				depth++
			case ')', ']', '}', ':':
				depth--
			}
		}
		before = c
		if depth > maxDepth {
			return tokens, &Fault{line, column, fmt.Sprintf("nests deeper than %d levels", maxDepth)}
		}
		if tokens > maxTokens {
			return tokens, &Fault{line, column, fmt.Sprintf("has more than %d words and signs", maxTokens)}
		}
	}
	return tokens, nil
}

func isWord(c rune) bool {
	return c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// refuse refuses what no filter needs: messages of protocol buffers, whose making
// and comparing is not counted, and patterns that are not there to be judged. Of
// the others it adds to matched. It returns how many nodes the tree has.
func refuse(tree *ast.AST, matched *patterns) (nodes int, fault error) {
	at := func(e ast.Expr, detail string) {
		where := tree.SourceInfo().GetStartLocation(e.ID())
		fault = &Fault{where.Line(), where.Column() + 1, detail}
	}
	ast.PreOrderVisit(tree.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if nodes++; fault != nil {
			return
		}
		switch e.Kind() {
		case ast.StructKind:
			at(e, "makes a message; a filter cannot")
		case ast.CallKind:
			call := e.AsCall()
			args := call.Args()
			if call.FunctionName() != "matches" || len(args) == 0 {
				return
			}
			pattern := args[len(args)-1] // of text.matches(pattern) and matches(text, pattern)
			if pattern.Kind() != ast.LiteralKind {
				at(e, `matches a pattern that is no literal; write it out, as in data.name.matches("^A")`)
			} else if text, ok := pattern.AsLiteral().(types.String); ok {
				if err := matched.add(string(text)); err != nil {
					at(pattern, err.Error())
				}
			}
		}
	}))
	return nodes, fault
}

// Errors of [Filter.Match]. Their texts end a sentence, and hold nothing of the
// event's data.
var (
	errCost  = errors.New("it took more steps than a filter may")
	errTime  = errors.New("it took too long")
	errBool  = errors.New("it said neither true nor false")
	errOther = errors.New("an operation does not work on this data")
)

// Match reports whether the filter says true. An error says why it cannot tell;
// its text is fit to be shown to the tenant. What that took is added to the data's
// [Data.Work].
func (f *Filter) Match(eventType string, d *Data) (bool, error) {
	value, err := d.value()
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), maxTime)
	defer cancel()
	out, details, err := f.program.ContextEval(ctx, map[string]any{"type": eventType, "data": value})
	d.worked(details, err)
	if err != nil {
		return false, explain(err)
	}
	b, ok := out.(types.Bool)
	if !ok {
		return false, errBool
	}
	return bool(b), nil
}

// explain keeps of the interpreter's errors what tells nothing of the data.
func explain(err error) error {
	if c, ok := errors.AsType[interpreter.EvalCancelledError](err); ok && c.Cause == interpreter.CostLimitExceeded {
		return errCost
	}
	for _, own := range ownErrors {
		if errors.Is(err, own) {
			return own
		}
	}
	text := err.Error()
	switch {
	case errors.Is(err, context.DeadlineExceeded), strings.Contains(text, "interrupted"):
		return errTime
	case strings.HasPrefix(text, "no such key: "), strings.HasPrefix(text, "no such attribute"):
		return errors.New("data has no such member; has(data.…) asks for one")
	case strings.HasPrefix(text, "no such overload"):
		return errors.New("an operation does not fit the types that are in data")
	case strings.Contains(text, "cost limit"):
		return errCost
	}
	return errOther
}
