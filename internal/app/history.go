package app

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/posthorn/posthorn/internal/config"
	"github.com/posthorn/posthorn/internal/doctor"
	"github.com/posthorn/posthorn/internal/store"
)

// historyAhead is how far ahead the tables of the history are when all is well. An
// hour passes between two looks, and what could not be made is tried again each minute.
const historyAhead = 5 * 7 * 24 * time.Hour

// historyLate is how much less of it is a fault.
const historyLate = 24 * time.Hour

// watchHistory tells how far ahead a history that is kept in tables by time has them.
func (m *metrics) watchHistory(s store.Store, now func() time.Time) {
	p, ok := s.(store.Partitioned)
	if !ok {
		return
	}
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "posthorn_history_ahead_seconds",
		Help: "How far ahead there are tables for new events: five weeks or more; at 0 publishing is refused. -1 if the store did not answer, or nothing was published yet."},
		func() float64 {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			defer cancel()
			until, err := p.HistoryUntil(ctx, now())
			if err != nil || until.IsZero() {
				return -1
			}
			return until.Sub(now()).Seconds()
		}))
}

// checkHistory finds nothing where there is nothing to find.
func checkHistory(ctx context.Context, cfg *config.Config, s store.Store, now time.Time) []doctor.Finding {
	p, ok := s.(store.Partitioned)
	if !ok {
		return nil
	}
	const why = `psql -c "SELECT pid, mode, granted FROM pg_locks WHERE relation IN ('posthorn.events'::regclass, 'posthorn.deliveries'::regclass) AND mode LIKE 'Share%Exclusive%'" `
	mend := why + config.ShownStore(cfg.StorePath)
	switch until, err := p.HistoryUntil(ctx, now); {
	case err != nil:
		return one(doctor.Fault(mend, "the history's tables cannot be listed: %v", err))
	case until.IsZero(), until.Sub(now) >= historyAhead-historyLate:
		return nil
	default:
		return one(doctor.Fault(mend, "the history has tables for %d days ahead only, of %d: no node runs, or something keeps it locked (ANALYZE, VACUUM); after that publishing is refused",
			int(until.Sub(now).Hours()/24), int(historyAhead.Hours()/24)))
	}
}
