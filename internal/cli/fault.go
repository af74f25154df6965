package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/client"
	"github.com/posthorn/posthorn/internal/config"
	"github.com/posthorn/posthorn/internal/store"
)

// The exit codes.
const (
	ExitDone        = 0
	ExitFailed      = 1
	ExitUsage       = 2
	ExitNotFound    = 3
	ExitNotAllowed  = 4
	ExitConflict    = 5
	ExitTestFailed  = 6
	ExitUnreachable = 7
	ExitInterrupted = 130 // Ctrl-C, as shells count it
)

// ExitCode explains one exit code.
type ExitCode struct {
	Code int
	// Name is "code" in the errors of -o json.
	Name, Meaning string
}

// Codes lists the exit codes.
func Codes() []ExitCode {
	return []ExitCode{
		{ExitDone, "done", "done"},
		{ExitFailed, "failed", "it failed for another reason than those below"},
		{ExitUsage, "usage", "the command line, the settings or the content sent are wrong; trying again does not help"},
		{ExitNotFound, "not_found", "what was named is not there: a resource, a store's file"},
		{ExitNotAllowed, "not_allowed", "no token, a bad one, or one that does not reach that far; a file of another user"},
		{ExitConflict, "conflict", "it clashes with what is there: a name that is taken, an id used for something else"},
		{ExitTestFailed, "test_failed", "the thing tested failed: `event send --wait` saw a delivery fail, `delivery retry --wait` and `event resend --wait` an attempt, `endpoint test` a receiver, `check` a fault of it, `verify` a wrong signature, `bench` lost an event or missed a bar"},
		{ExitUnreachable, "unreachable", "the server cannot be reached, or not again within --reconnect-for"},
		{ExitInterrupted, "interrupted", "interrupted (Ctrl-C); `serve`, `dev`, `listen` and `event tail` end with 0"},
	}
}

// fault is an error as the user is told of it.
type fault struct {
	exit      int
	message   string   // a sentence
	details   []string // more of what is wrong, a line each
	hint      string   // what to do, or empty
	requestID string
	err       error // what it came from, or nil
}

func (f *fault) Error() string { return f.message }

func (f *fault) Unwrap() error { return f.err }

func usage(format string, args ...any) *fault {
	return &fault{exit: ExitUsage, message: fmt.Sprintf(format, args...)}
}

// with adds a hint.
func (f *fault) with(format string, args ...any) *fault {
	f.hint = fmt.Sprintf(format, args...)
	return f
}

// faultOf turns any error into what the user is told and the exit code.
func faultOf(ctx context.Context, err error) *fault {
	if f, ok := errors.AsType[*fault](err); ok {
		return f
	}
	if e, ok := errors.AsType[*client.Error](err); ok {
		return answered(e)
	}
	if e, ok := errors.AsType[*client.UnreachableError](err); ok {
		return &fault{exit: ExitUnreachable, message: sentence(e.Error()), err: err,
			hint: "Is it running? Name another by --server or POSTHORN_SERVER."}
	}
	f := &fault{exit: ExitFailed, message: sentence(err.Error()), err: err}
	switch {
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		f.exit, f.message = ExitInterrupted, "Interrupted."
	case errors.Is(err, store.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		f.exit = ExitNotFound
	case errors.Is(err, fs.ErrPermission):
		f.exit = ExitNotAllowed
	case errors.Is(err, store.ErrExists):
		f.exit = ExitConflict
	default:
		switch posthorn.ErrorCode(err) {
		case posthorn.NotFound:
			f.exit = ExitNotFound
		case posthorn.Unauthorized, posthorn.Forbidden:
			f.exit = ExitNotAllowed
		case posthorn.Conflict, posthorn.PreconditionFailed:
			f.exit = ExitConflict
		case posthorn.Malformed, posthorn.Invalid, posthorn.TooLarge:
			f.exit = ExitUsage
		}
	}
	return f
}

// answered tells of a problem that the server answered with.
func answered(e *client.Error) *fault {
	f := &fault{exit: ExitFailed, message: sentence(e.Summary()), requestID: e.RequestID, err: e}
	for _, one := range e.Faults {
		f.details = append(f.details, strings.TrimPrefix(one.Pointer+": "+one.Detail, ": "))
	}
	switch e.Status {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity:
		f.exit = ExitUsage
	case http.StatusUnauthorized:
		f.exit = ExitNotAllowed
		f.hint = "Is POSTHORN_TOKEN right? \"posthorn token create\" makes one where the store is."
	case http.StatusForbidden:
		f.exit = ExitNotAllowed
		if strings.Contains(e.Detail, "scope") {
			f.hint = "\"posthorn token create --scope …\" makes a token that has it."
		}
	case http.StatusNotFound:
		f.exit = ExitNotFound
	case http.StatusConflict, http.StatusPreconditionFailed:
		f.exit = ExitConflict
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		if e.RetryAfter > 0 {
			f.hint = "Try again in " + config.FormatDuration(e.RetryAfter) + "."
		}
	}
	return f
}

// sentence begins with a capital, unless it begins with a name, and ends with a
// full stop.
func sentence(s string) string {
	s = strings.TrimSpace(strings.TrimPrefix(strings.TrimPrefix(s, "client: "), "store: "))
	if s == "" {
		return s
	}
	first, _, _ := strings.Cut(s, " ")
	if c := s[0]; 'a' <= c && c <= 'z' && !strings.ContainsAny(first, `/.:_-`) {
		s = string(c-'a'+'A') + s[1:]
	}
	if !strings.ContainsAny(s[len(s)-1:], ".!?") {
		s += "."
	}
	return s
}

// flagFault explains what pflag could not read.
func flagFault(cmd *cobra.Command, err error) error {
	f := &fault{exit: ExitUsage, message: sentence(err.Error()), err: err,
		hint: fmt.Sprintf("%q lists the flags.", cmd.CommandPath()+" --help")}
	if bad, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		kinds := map[string]string{"int": "is not a whole number", "bool": "is neither true nor false"}
		what, ok := kinds[bad.GetFlag().Value.Type()]
		if !ok {
			what = "cannot be: " + bad.Unwrap().Error()
		}
		f.message = fmt.Sprintf("--%s %q %s.", bad.GetFlag().Name, bad.GetValue(), what)
	}
	if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok {
		name := unknown.GetSpecifiedName()
		f.message = fmt.Sprintf("%q has no flag --%s.", cmd.CommandPath(), name)
		if unknown.GetSpecifiedShortnames() != "" {
			f.message = fmt.Sprintf("%q has no flag -%s.", cmd.CommandPath(), name)
		}
		var names []string
		cmd.Flags().VisitAll(func(fl *pflag.Flag) { names = append(names, fl.Name) })
		if near := config.Nearest(name, names); near != "" {
			f.hint = "Did you mean --" + near + "?"
		}
	}
	return f
}

// finish reports the error and returns the exit code.
func (r *runner) finish(ctx context.Context, args []string, err error) int {
	if err == nil {
		return ExitDone
	}
	f := faultOf(ctx, err)
	told := make(chan struct{})
	go func() {
		defer close(told)
		r.tell(f, args)
	}()
	var late <-chan time.Time
	if r.serves {
		late = time.After(faultTold)
	}
	select {
	case <-told:
	case <-late:
	}
	return f.exit
}

// faultTold is how long a service waits until its last words are read: a blocked pipe
// must not keep it from being started again.
const faultTold = time.Second

// tell prints why a command failed.
func (r *runner) tell(f *fault, args []string) {
	if r.output == "json" || r.output == "jsonl" || wantsJSON(args) {
		r.printFault(f)
		return
	}
	r.say("%s %s", r.paint(r.Err, red, "error:"), printable(f.message))
	for _, d := range f.details {
		r.say("  %s", printable(d))
	}
	if f.hint != "" {
		r.say("%s", printable(f.hint))
	}
	if f.requestID != "" {
		r.say("Request %s", printable(f.requestID))
	}
}

// wantsJSON finds -o json in a command line that could not be parsed.
func wantsJSON(args []string) bool {
	for i, a := range args {
		if a == "--" {
			return false
		}
		if (a == "-o" || a == "--output") && i+1 < len(args) {
			a += "=" + args[i+1]
		}
		if slices.Contains([]string{"-o=json", "-ojson", "--output=json", "-o=jsonl", "-ojsonl", "--output=jsonl"}, a) {
			return true
		}
	}
	return false
}
