package app

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/lane"
	"github.com/posthorn/posthorn/internal/store"
)

// metrics are the figures an operator watches. No label has a value per
// endpoint or tenant: their number is not bounded.
type metrics struct {
	registry    *prometheus.Registry
	published   prometheus.Counter
	attempts    [2]prometheus.Histogram // failed, succeeded
	outcomes    []prometheus.Counter    // by posthorn.Class
	finished    *prometheus.CounterVec
	lag         prometheus.Histogram
	lost        prometheus.Counter
	paused      *prometheus.CounterVec
	recovered   prometheus.Counter
	operational *prometheus.CounterVec
	dropped     prometheus.Counter
	overShare   prometheus.Counter
}

var latencyBuckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 15, 30}

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		published: prometheus.NewCounter(prometheus.CounterOpts{Name: "posthorn_events_published_total",
			Help: "Events accepted and durable."}),
		finished: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "posthorn_deliveries_finished_total",
			Help: "Deliveries that an attempt brought to a final state."}, []string{"state"}),
		lag: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "posthorn_publish_to_delivery_seconds",
			Help: "From acceptance to the acknowledgement of the first attempt.", Buckets: latencyBuckets}),
		lost: prometheus.NewCounter(prometheus.CounterOpts{Name: "posthorn_results_lost_total",
			Help: "Results that were not recorded because the delivery had moved on."}),
		paused: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "posthorn_endpoints_paused_total",
			Help: "Endpoints paused by their own answers."}, []string{"reason"}),
		recovered: prometheus.NewCounter(prometheus.CounterOpts{Name: "posthorn_endpoints_recovered_total",
			Help: "Endpoints that succeeded after failing."}),
		operational: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "posthorn_operational_events_total",
			Help: "Events of Posthorn's own about endpoints: failing, paused, recovered."}, []string{"type"}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{Name: "posthorn_outbox_dropped_total",
			Help: "Refused events of the outbox that were dropped because their tenant had more than are kept."}),
	}
	m.overShare = prometheus.NewCounter(prometheus.CounterOpts{Name: "posthorn_publishes_over_share_total",
		Help: "Publishes that were refused because their tenant keeps more than it may, or than its share while room is short."})
	byClass := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "posthorn_attempts_total",
		Help: "Attempts by what came of them."}, []string{"class"})
	for _, c := range posthorn.Classes() {
		m.outcomes = append(m.outcomes, byClass.WithLabelValues(c.String()))
	}
	duration := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "posthorn_attempt_duration_seconds",
		Help: "From the start of an attempt to the answer's headers or the failure.", Buckets: latencyBuckets}, []string{"succeeded"})
	m.attempts = [2]prometheus.Histogram{
		duration.WithLabelValues("false").(prometheus.Histogram),
		duration.WithLabelValues("true").(prometheus.Histogram),
	}
	m.registry.MustRegister(m.published, m.finished, m.lag, m.lost, m.paused, m.recovered, m.operational, m.dropped, m.overShare, byClass, duration,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// watch adds the gauges that are read when somebody asks.
func (m *metrics) watch(engine *lane.Engine, s interface {
	Counts(context.Context) (store.Counts, error)
}, now func() time.Time) {
	gauge := func(name, help string, value func() float64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
	}
	gauge("posthorn_attempts_in_flight", "Attempts under way.", func() float64 { return float64(engine.Stats().InFlight) })
	gauge("posthorn_attempts_unproven", "Attempts under way to endpoints whose last one did not succeed, or that last longer than twice their usual time.", func() float64 { return float64(engine.Stats().Unproven) })
	gauge("posthorn_lanes_waiting_for_host", "Endpoints with something to send whose tenant has as many attempts to their host as it may.", func() float64 { return float64(engine.Stats().WaitForHost) })
	gauge("posthorn_deliveries_in_memory", "Deliveries that wait in this process's lanes.", func() float64 { return float64(engine.Stats().Queued) })
	gauge("posthorn_lanes", "Endpoints that have something to do.", func() float64 { return float64(engine.Stats().Lanes) })
	gauge("posthorn_results_unrecorded", "Attempts that ended and are not yet durable.", func() float64 { return float64(engine.Stats().Unrecorded) })
	counts := func(pick func(store.Counts) float64) func() float64 {
		return func() float64 {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			defer cancel()
			c, err := s.Counts(ctx)
			if err != nil {
				return -1
			}
			return pick(c)
		}
	}
	gauge("posthorn_deliveries_open", "Deliveries that are not in a final state, of all tenants; -1 if the store did not answer.",
		counts(func(c store.Counts) float64 { return float64(c.Open) }))
	gauge("posthorn_oldest_open_seconds", "Age of the oldest of them; 0 for none, -1 if the store did not answer.",
		counts(func(c store.Counts) float64 {
			if c.Oldest.IsZero() {
				return 0
			}
			return now().Sub(c.Oldest).Seconds()
		}))
}

// watchHoldings tells what of the store this process holds, where processes share it.
func (m *metrics) watchHoldings(s store.Store) {
	h, ok := s.(store.Holder)
	if !ok {
		return
	}
	m.registry.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "posthorn_deliveries_held", Help: "Deliveries that this node has taken over: in its lanes, being attempted or recorded."},
			func() float64 { held, _ := h.Holdings(); return float64(held) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "posthorn_deliveries_unheld_total",
			Help: "Deliveries that belonged to this node and that nobody held. They were given back; each is a fault of Posthorn."},
			func() float64 { _, unheld := h.Holdings(); return float64(unheld) }))
}

// watchConnections tells how full the API's listener is.
func (m *metrics) watchConnections(l *connections) {
	figure := func(pick func(open, evicted, refused int) int) func() float64 {
		return func() float64 { return float64(pick(l.figures())) }
	}
	m.registry.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "posthorn_connections_open", Help: "Connections to the API."},
			figure(func(open, _, _ int) int { return open })),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "posthorn_connections_evicted_total",
			Help: "Connections that gave their place to another one, because of max-connections."},
			figure(func(_, evicted, _ int) int { return evicted })),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "posthorn_connections_refused_total",
			Help: "Connections that were closed because all others were in use, and nobody had more than another."},
			figure(func(_, _, refused int) int { return refused })))
}

// watchLog tells what of the log nobody could read.
func (m *metrics) watchLog(log *slog.Logger) {
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "posthorn_log_lines_dropped_total",
		Help: "Log lines that were dropped because whoever reads standard error did not keep up."},
		func() float64 { return float64(droppedLines(log)) }))
}

// observe counts one attempt.
func (m *metrics) observe(o *lane.Observation) {
	m.outcomes[o.Attempt.Class].Inc()
	ok := 0
	if o.Attempt.Succeeded() {
		ok = 1
	}
	m.attempts[ok].Observe(o.Attempt.Duration.Seconds())
	switch {
	case o.Err != nil:
		return
	case o.Recorded.Lost:
		m.lost.Inc()
		return
	}
	if p := o.Recorded.Progress; p.State.Final() && p.State != o.Work.Progress.Ended() {
		m.finished.WithLabelValues(p.State.String()).Inc()
		if ok == 1 && p.Attempts == 1 {
			m.lag.Observe((o.Lag + o.Attempt.Duration).Seconds())
		}
	}
	if o.Recorded.Paused != "" {
		m.paused.WithLabelValues(string(o.Recorded.Paused)).Inc()
	}
	if o.Recorded.Recovered {
		m.recovered.Inc()
	}
}
