package app

import (
	"context"
	"log/slog"
	"net/url"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/lane"
)

// logAttempt writes the one wide line of an attempt. It holds no secret, no
// payload and no path or query of the url.
//
// A success at the first attempt says nothing that the delivery log does not, and
// there are thousands a second: like an accepted publish it is told at debug level
// only (a tenth of the time of a busy server).
func logAttempt(log *slog.Logger, o *lane.Observation, now func() time.Time) {
	level := slog.LevelInfo
	switch {
	case o.Err != nil:
		level = slog.LevelError
	case o.Attempt.Class == posthorn.ClassOK && o.Attempt.Number == 1 && !o.Recorded.Lost && !o.Recorded.Recovered:
		level = slog.LevelDebug
	}
	ctx := context.Background()
	if !log.Enabled(ctx, level) {
		return
	}
	a, p := &o.Attempt, &o.Recorded.Progress
	attrs := make([]slog.Attr, 0, 16)
	attrs = append(attrs,
		slog.String("event", o.Work.EventRef()),
		slog.String("type", o.Work.Type),
		slog.String("delivery", o.Work.ID.Text(posthorn.DeliveryPrefix)),
		slog.String("endpoint", o.Target.Endpoint.Ref),
		slog.String("host", hostOf(o.Target.Endpoint.URL)),
		slog.Int("attempt", a.Number),
		slog.String("class", a.Class.String()),
		slog.Int("status", a.Status),
		slog.Float64("took_ms", milliseconds(a.Duration)),
		slog.Float64("lag_ms", milliseconds(o.Lag)),
	)
	if a.Detail != "" {
		attrs = append(attrs, slog.String("detail", a.Detail))
	}
	switch {
	case o.Err != nil:
		attrs = append(attrs, slog.String("err", o.Err.Error()))
	case o.Recorded.Lost:
		attrs = append(attrs, slog.Bool("lost", true))
	default:
		attrs = append(attrs, slog.String("state", p.State.String()))
		if !p.NextAt.IsZero() {
			attrs = append(attrs, slog.Time("next_at", p.NextAt))
		}
	}
	if o.Recorded.Paused != "" {
		attrs = append(attrs, slog.String("endpoint_paused", string(o.Recorded.Paused)))
	}
	line := slog.NewRecord(now(), level, "attempt", 0) // LogAttrs would look up where it was called
	line.AddAttrs(attrs...)
	_ = log.Handler().Handle(ctx, line) // as slog does
}

// milliseconds reads the same in JSON and in text; slog's durations do not.
func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func hostOf(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return ""
	}
	return u.Host
}
