package app

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/posthorn/posthorn/internal/publish"
	"github.com/posthorn/posthorn/internal/store"
)

// outbox is the store's, nil if it has none.
func outbox(s store.Store) store.Outbox {
	o, _ := s.(store.Outbox)
	return o
}

// publishOutbox publishes what other programs left in the store, until ctx ends.
func (n *node) publishOutbox(ctx context.Context) {
	rows := outbox(n.store)
	if rows == nil {
		return
	}
	o := publish.Outbox{Service: n.publish, Rows: rows, Tenant: n.store.TenantByID, Log: n.log}
	o.Run(ctx)
}

// outboxCounted bounds what is counted of the outbox for the metrics.
const outboxCounted = 100_000

// watchOutbox tells how full the outbox is.
func (m *metrics) watchOutbox(o store.Outbox, now func() time.Time) {
	if o == nil {
		return
	}
	m.registry.MustRegister(&outboxFigures{o, now})
}

// outboxFigures reads the outbox once per scrape.
type outboxFigures struct {
	outbox store.Outbox
	now    func() time.Time
}

var (
	outboxEvents = prometheus.NewDesc("posthorn_outbox_events",
		"Events in the outbox that wait to be published or were refused, at most 100,000 counted; absent if the store did not answer.", []string{"state"}, nil)
	outboxOldest = prometheus.NewDesc("posthorn_outbox_oldest_seconds",
		"Age of the oldest event that waits in the outbox; 0 for none, absent if the store did not answer.", nil, nil)
)

func (f *outboxFigures) Describe(c chan<- *prometheus.Desc) {
	c <- outboxEvents
	c <- outboxOldest
}

func (f *outboxFigures) Collect(c chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	waiting, refused, oldest, err := f.outbox.OutboxCounts(ctx, outboxCounted)
	if err != nil {
		return
	}
	age := 0.0
	if !oldest.IsZero() {
		age = max(0, f.now().Sub(oldest).Seconds())
	}
	c <- prometheus.MustNewConstMetric(outboxEvents, prometheus.GaugeValue, float64(waiting), "waiting")
	c <- prometheus.MustNewConstMetric(outboxEvents, prometheus.GaugeValue, float64(refused), "refused")
	c <- prometheus.MustNewConstMetric(outboxOldest, prometheus.GaugeValue, age)
}
