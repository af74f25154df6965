package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/posthorn/posthorn/client"
	"github.com/posthorn/posthorn/internal/config"
)

// waitFlags are those of commands that send again: a 202 means queued, and --wait
// shows what really came of it.
type waitFlags struct {
	wait    bool
	timeout string
}

func (w *waitFlags) add(c *cobra.Command) {
	c.Flags().BoolVar(&w.wait, "wait", false, "wait for the attempt and show what came of it; exit 6 if it fails")
	c.Flags().StringVar(&w.timeout, "timeout", "45s", "how `long` --wait waits")
}

func (w *waitFlags) limit() (time.Duration, error) {
	d, err := config.ParseDuration(w.timeout)
	if err != nil {
		return 0, usage("--timeout: %v.", err)
	}
	return d, nil
}

// attemptByHand returns the attempt by hand that was made after the first known ones;
// nil while there is none. One of the schedule may come between: it is not what was
// asked for.
func attemptByHand(d *client.Delivery, known int) *client.Attempt {
	for i := range d.Attempts {
		if a := &d.Attempts[i]; a.Manual && a.Number > known {
			return a
		}
	}
	return nil
}

// retried waits for the attempt by hand that comes after the known ones. A delivery
// that is ended otherwise, as by a cancellation, comes back without one.
func (r *runner) retried(ctx context.Context, api *client.Client, id string, known int) (*client.Delivery, *client.Attempt, error) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		d, err := api.Delivery(ctx, id)
		switch {
		case err == nil:
			if a := attemptByHand(d, known); a != nil || d.State == "canceled" && d.NextAttemptAt.IsZero() {
				return d, a, nil
			}
		case context.Cause(ctx) != errWaited:
			return nil, nil, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if context.Cause(ctx) == errWaited {
				return nil, nil, (&fault{exit: ExitTestFailed, message: "It was not attempted within --timeout."}).
					with("\"posthorn delivery get %s\" shows how it goes on.", id)
			}
			return nil, nil, ctx.Err()
		}
	}
}

// awaitRetried tells what came of a retry.
func (r *runner) awaitRetried(ctx context.Context, api *client.Client, queued *client.Delivery, limit time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errWaited)
	defer cancel()
	d, a, err := r.retried(ctx, api, queued.ID, queued.AttemptsMade)
	if err != nil {
		return err
	}
	if r.wantsTable() {
		r.sayRetried(d, a)
		_, err = fmt.Fprintln(r.Out, printable(d.ID))
	} else {
		err = r.printOne(d.JSON())
	}
	if err == nil && (a == nil || a.Class != "ok") {
		err = (&fault{exit: ExitTestFailed, message: "The receiver did not acknowledge it."}).
			with("\"posthorn delivery get %s\" shows all attempts.", d.ID)
	}
	return err
}

// sayRetried tells in a line how an attempt by hand ended.
func (r *runner) sayRetried(d *client.Delivery, a *client.Attempt) {
	mark, tone, why := "✗", red, d.Reason
	if a != nil {
		if why = a.Explanation; a.Class == "ok" {
			mark, tone = "✓", green
		}
	}
	r.say("%s", r.paint(r.Err, tone, printable(fmt.Sprintf("%s %s %s %s", mark, d.Endpoint, d.State, why))))
}

// resendAndWait resends an event and tells what came of each delivery.
func (r *runner) resendAndWait(ctx context.Context, api *client.Client, id, endpoint string, limit time.Duration) error {
	before, err := api.Event(ctx, id)
	if err != nil {
		return err
	}
	known := map[string]int{}
	for i := range before.DeliveryLog {
		known[before.DeliveryLog[i].ID] = before.DeliveryLog[i].AttemptsMade
	}
	e, err := api.ResendEvent(ctx, id, endpoint)
	if err != nil {
		return err
	}
	r.say("Queued: %s.", count(e.Queued, "delivery"))
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errWaited)
	defer cancel()
	failed := 0
	out := r.list("DELIVERY", "STATE", "RESULT")
	for _, one := range e.Deliveries {
		if !one.Queued {
			failed++
			r.say("%s is not sent: %s", printable(one.ID), printable(one.Refused))
			continue
		}
		d, a, err := r.retried(ctx, api, one.ID, known[one.ID])
		if err != nil {
			return err
		}
		result, tone := d.Reason, red
		if a != nil {
			if result = a.Explanation; a.Class == "ok" {
				tone = green
			}
		}
		if tone == red {
			failed++
		}
		if err := out.add(d.JSON(), tone, d.ID, d.State, result); err != nil {
			return err
		}
	}
	if err := out.close("Nothing was sent."); err != nil {
		return err
	}
	if failed > 0 {
		return (&fault{exit: ExitTestFailed, message: fmt.Sprintf("%s of %d did not succeed.", count(failed, "delivery"), len(e.Deliveries))}).
			with("\"posthorn event get %s\" shows them all.", id)
	}
	return nil
}
