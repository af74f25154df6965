package store

import (
	"log/slog"

	"github.com/posthorn/posthorn"
)

// Apply is what the result makes of its delivery, which stands at p and has a log
// of attempts: where it stands then, and its log with the attempt; without what the
// receiver answered if the payload was erased meanwhile.
//
// Nothing that is wrong with the delivery or the result is an error: engines repeat
// what is not recorded, and would for ever. A log that is broken keeps what is whole
// of it, and a result that the policy does not take is lost (ok is false). Both are
// logged as errors.
func (r *Result) Apply(p posthorn.Progress, log []byte, erased bool, l *slog.Logger) (next posthorn.Progress, with []byte, ok bool) {
	next, err := r.Policy.Step(p, posthorn.Input{
		Move: posthorn.Attempted, Outcome: r.Attempt.Class, RetryAfter: r.Attempt.RetryAfter,
		Now: r.EndedAt, Random: r.Random,
	})
	if err != nil {
		l.Error("a result is lost: its delivery does not take it", "delivery", r.ID.Text(posthorn.DeliveryPrefix), "error", err)
		return p, log, false
	}
	kept := r.Attempt
	if erased {
		WithoutAnswer(&kept)
	}
	with, err = AppendAttempt(log, &kept)
	if err != nil {
		l.Error("earlier attempts were damaged and are dropped from the log of a delivery", "delivery", r.ID.Text(posthorn.DeliveryPrefix), "error", err)
	}
	return next, with, true
}
