package lane

import (
	"context"
	"fmt"
	"time"
)

// drainGrace is how long a drain whose time is over waits for the records of
// attempts that it cut short, and for what is queued to be given back.
const drainGrace = 3 * time.Second

// Drain ends the engine: no attempt starts any more, those in flight end and are
// recorded, and what is queued is given back to the store. When ctx ends first,
// the attempts are cut short (they count as [posthorn.ClassLocal] and are made
// again after the next start), and the error says how many. A store that does not
// answer is given up on after three seconds more: it recovers the rows when it is
// opened. A second Drain waits for the first.
func (e *Engine) Drain(ctx context.Context) error {
	e.mu.Lock()
	switch e.phase {
	case phaseNew:
		e.phase = phaseStopped
		close(e.stopped)
		e.mu.Unlock()
		return nil
	case phaseDraining, phaseStopped:
		e.mu.Unlock()
		select {
		case <-e.stopped:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	e.phase = phaseDraining
	e.epoch.Add(1)
	close(e.stopWork)
	e.attendant.Broadcast()
	e.checkQuiet()
	e.mu.Unlock()
	defer close(e.stopped)

	cut := 0
	select {
	case <-e.quiet:
	case <-ctx.Done():
		e.mu.Lock()
		cut = e.inFlight
		e.mu.Unlock()
	}
	// From here on a store that hangs is given up on in time.
	deadline := time.AfterFunc(drainGrace, e.cancel)
	defer deadline.Stop()
	e.cancelAttempts()
	e.attempts.Wait()
	e.workers.Wait()
	e.handBack()
	e.parker.Wait()
	e.cancel()
	if cut > 0 {
		return fmt.Errorf("lane: %d attempts were cut short: %w", cut, context.Cause(ctx))
	}
	return nil
}

// checkQuiet tells a drain that nothing is in flight or unrecorded.
func (e *Engine) checkQuiet() {
	if e.phase != phaseDraining || e.inFlight+e.unrecorded > 0 {
		return
	}
	select {
	case <-e.quiet:
	default:
		close(e.quiet)
	}
}

// handBack gives the parker all that is queued, and with it its last work.
func (e *Engine) handBack() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, l := range e.lanes {
		if !l.gone {
			e.giveBack(l, e.all(l))
		}
	}
	e.phase = phaseStopped
	e.parked.Broadcast()
}
