package postgres_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// BenchmarkDelivery publishes and records by 64 callers at a time: the store's
// share of a delivery that succeeds at once.
func BenchmarkDelivery(b *testing.B) {
	url := database(b)
	c := newCluster(b, url)
	s := c.nodeFor(url, 10*time.Second)
	db, err := pgx.Connect(b.Context(), url)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close(b.Context())
	wal := func() (n int64) {
		if err := db.QueryRow(b.Context(), `SELECT pg_current_wal_lsn() - '0/0'`).Scan(&n); err != nil {
			b.Fatal(err)
		}
		return n
	}
	p := c.publication(s)
	data := make([]byte, 1000)
	for i := range data {
		data[i] = byte('a' + i*i%23)
	}
	body := string(data)
	before := wal()
	var left atomic.Int64
	left.Store(int64(b.N))
	b.ResetTimer()
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				p := p
				p.At = time.Now()
				e := c.event("")
				e.Body = posthorn.AppendBody(nil, "", e.Type, p.At, []byte(`{"a":"`+body+`"}`))
				p.Events = []store.NewEvent{e}
				got, err := s.Publish(b.Context(), p)
				if err != nil {
					b.Error(err)
					return
				}
				s.Record(c.result(got[0].ID+1, posthorn.ClassOK), func(_ store.Recorded, err error) {
					if err != nil {
						b.Error(err)
					}
				})
			}
		})
	}
	wg.Wait()
	if err := s.Close(); err != nil { // writes what waits
		b.Error(err)
	}
	b.StopTimer()
	b.ReportMetric(float64(wal()-before)/float64(b.N), "WAL-B/op")
}
