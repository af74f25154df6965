package app

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/posthorn/posthorn/internal/publish"
	"github.com/posthorn/posthorn/internal/store"
)

// keeping is the store's account of what tenants keep; nil if it has none.
func keeping(s store.Store) publish.Keeping {
	if k, ok := s.(store.Keeping); ok {
		return k
	}
	return nil // and not a nil of another type
}

// roomFigures reads how much room there is once per scrape.
type roomFigures struct{ of publish.Keeping }

var (
	roomFree = prometheus.NewDesc("posthorn_store_free_bytes",
		"What is left of the store's disk, or of store-bytes; absent where that is not known.", nil, nil)
	roomReserve = prometheus.NewDesc("posthorn_store_reserve_bytes",
		"Below so many free bytes publishing is refused; below twice as many, that of tenants which keep more than an equal share.", nil, nil)
	roomKept = prometheus.NewDesc("posthorn_store_kept_bytes",
		"What all tenants keep: payloads, and an estimate of rows.", nil, nil)
	roomTenants = prometheus.NewDesc("posthorn_store_keeping_tenants", "Tenants that keep something.", nil, nil)
)

// watchRoom tells how much room there is, and what is kept.
func (m *metrics) watchRoom(k publish.Keeping) {
	if k != nil {
		m.registry.MustRegister(&roomFigures{k})
	}
}

func (f *roomFigures) Describe(c chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{roomFree, roomReserve, roomKept, roomTenants} {
		c <- d
	}
}

func (f *roomFigures) Collect(c chan<- prometheus.Metric) {
	if r, known := f.of.Room(); known {
		c <- prometheus.MustNewConstMetric(roomFree, prometheus.GaugeValue, float64(r.Free))
		c <- prometheus.MustNewConstMetric(roomReserve, prometheus.GaugeValue, float64(r.Reserve))
	}
	k := f.of.Kept(0)
	c <- prometheus.MustNewConstMetric(roomKept, prometheus.GaugeValue, float64(k.All))
	c <- prometheus.MustNewConstMetric(roomTenants, prometheus.GaugeValue, float64(k.Tenants))
}
