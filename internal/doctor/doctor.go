// Package doctor looks an installation over and says what is wrong with it, and
// which command mends it.
package doctor

import (
	"context"
	"fmt"
	"time"
)

// State is how a check came out.
type State string

const (
	OK      State = "ok"
	Wrong   State = "wrong"
	Skipped State = "skipped" // it does not apply here; What says why
)

// Finding is what one check found.
type Finding struct {
	Check string `json:"check"`
	State State  `json:"state"`
	// What is a sentence without a full stop, with no secret in it.
	What string `json:"what"`
	// Mend is a command line or a setting to change; empty unless something is wrong.
	Mend string `json:"mend,omitempty"`
}

// Fine is a check that found nothing wrong.
func Fine(format string, args ...any) Finding {
	return Finding{State: OK, What: fmt.Sprintf(format, args...)}
}

// Fault is something wrong and what mends it.
func Fault(mend, format string, args ...any) Finding {
	return Finding{State: Wrong, What: fmt.Sprintf(format, args...), Mend: mend}
}

// Skip is a check that does not apply.
func Skip(format string, args ...any) Finding {
	return Finding{State: Skipped, What: fmt.Sprintf(format, args...)}
}

// Check is one look. Run may return several findings, or none.
type Check struct {
	Name string
	Run  func(context.Context) []Finding
}

// Timeout bounds each check: what hangs is wrong, and the rest is looked at all
// the same.
const Timeout = 15 * time.Second

// Run makes the checks one after the other and calls tell with each finding.
func Run(ctx context.Context, checks []Check, tell func(Finding) error) error {
	for _, c := range checks {
		for _, f := range c.once(ctx) {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			f.Check = c.Name
			if err := tell(f); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *Check) once(ctx context.Context) []Finding {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	found := make(chan []Finding, 1)
	go func() { found <- c.Run(ctx) }()
	select {
	case f := <-found:
		return f
	case <-ctx.Done():
		return []Finding{Fault("", "no answer within %s", Timeout)}
	}
}
