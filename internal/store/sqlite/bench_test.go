package sqlite_test

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/sqlite"
)

// BenchmarkPublishRecord is the whole way of a delivery through the store: 64
// callers publish one event of 1 KiB each and record the result of its one
// attempt, 5 % of which fail and wait. Each publish and each result is on disk
// (fsync) when it is answered.
func BenchmarkPublishRecord(b *testing.B) {
	for _, size := range []struct{ tenants, endpoints int }{{1, 1}, {100, 10}} {
		b.Run(fmt.Sprintf("endpoints=%d", size.tenants*size.endpoints), func(b *testing.B) {
			benchmarkPublishRecord(b, size.tenants, size.endpoints)
		})
	}
}

func benchmarkPublishRecord(b *testing.B, tenants, endpoints int) {
	s := open(b, sqlite.Options{Path: filepath.Join(b.TempDir(), "bench.db"), Synchronous: "FULL"})
	targets := fixtures(b, s, tenants, endpoints)
	data := fmt.Appendf(nil, `{"fill":"%01000d"}`, 7)
	var left atomic.Int64
	left.Store(int64(b.N))
	var callers, results sync.WaitGroup
	b.ResetTimer()
	for range 64 {
		callers.Go(func() {
			for left.Add(-1) >= 0 {
				t := targets[rand.IntN(len(targets))]
				now := time.Now()
				a, err := s.Publish(b.Context(), store.Publication{
					Tenant: t.tenant, SetVersion: t.version, At: now, BacklogLimit: 1_000_000,
					Events: []store.NewEvent{{
						Type: "cases.updated", Hash: sha256.Sum256(data), OccurredAt: now,
						Body:    posthorn.AppendBody(nil, "", "cases.updated", now, data),
						Targets: []store.PublishTarget{{Endpoint: t.endpoint}},
					}},
				})
				if err != nil {
					b.Error(err)
					return
				}
				attempt := posthorn.Attempt{Number: 1, At: now, Duration: 5 * time.Millisecond, Status: 200}
				if rand.IntN(20) == 0 {
					attempt.Class, attempt.Status = posthorn.ClassHTTPStatus, 500
				}
				results.Add(1)
				s.Record(store.Result{
					ID: a[0].ID + 1, Endpoint: t.endpoint, Tenant: t.tenant, Attempt: attempt, EndedAt: time.Now(),
					Policy: posthorn.DefaultPolicy(),
				}, func(rec store.Recorded, err error) {
					if err != nil || rec.Lost {
						b.Errorf("%+v, %v", rec, err)
					}
					results.Done()
				})
			}
		})
	}
	callers.Wait()
	results.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "deliveries/s")
}

// BenchmarkFanOut is an event that goes to a thousand endpoints, on disk when it is
// answered: what another tenant waits for that comes meanwhile.
func BenchmarkFanOut(b *testing.B) {
	s := open(b, sqlite.Options{Path: filepath.Join(b.TempDir(), "bench.db"), Synchronous: "FULL"})
	made := fixtures(b, s, 1, 1000)
	targets := make([]store.PublishTarget, len(made))
	for i, t := range made {
		targets[i].Endpoint = t.endpoint
	}
	for b.Loop() {
		now := time.Now()
		if _, err := s.Publish(b.Context(), store.Publication{
			Tenant: made[0].tenant, SetVersion: made[0].version, At: now,
			Events: []store.NewEvent{{
				Type: "cases.updated", OccurredAt: now, Targets: targets,
				Body: posthorn.AppendBody(nil, "", "cases.updated", now, []byte(`{"case":7}`)),
			}},
		}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*len(targets)), "µs/delivery")
}

type benchTarget struct{ tenant, endpoint, version int64 }

func fixtures(b *testing.B, s store.Store, tenants, endpoints int) (targets []benchTarget) {
	b.Helper()
	c := store.Change{Actor: "bench", At: time.Now()}
	for i := range tenants {
		t, err := s.CreateTenant(b.Context(), c, fmt.Sprint("t", i))
		if err != nil {
			b.Fatal(err)
		}
		for j := range endpoints {
			ref := posthorn.NewRef(posthorn.EndpointPrefix, c.At)
			e, err := s.CreateEndpoint(b.Context(), c, posthorn.Endpoint{
				Ref: ref, Tenant: t.ID, URL: "https://example.com/" + ref, Events: []posthorn.Pattern{"*"},
			}, func(int64) (store.Sealed, error) { return store.Sealed{}, nil }, 0)
			if err != nil {
				b.Fatal(err)
			}
			targets = append(targets, benchTarget{t.ID, e.ID, int64(2 + j)})
		}
		for j := range endpoints {
			targets[len(targets)-1-j].version = int64(1 + endpoints)
		}
	}
	return targets
}

// BenchmarkParked is the way of a delivery that did not fit into memory: it is
// published as parked, claimed by its lane, and its result recorded.
func BenchmarkParked(b *testing.B) {
	s := open(b, sqlite.Options{Path: filepath.Join(b.TempDir(), "bench.db"), Synchronous: "FULL"})
	to := fixtures(b, s, 1, 1)[0]
	data := fmt.Appendf(nil, `{"fill":"%01000d"}`, 7)
	var results sync.WaitGroup
	b.ResetTimer()
	for done := 0; done < b.N; {
		now := time.Now()
		events := make([]store.NewEvent, min(256, b.N-done))
		for i := range events {
			events[i] = store.NewEvent{
				Type: "cases.updated", Hash: sha256.Sum256(data), OccurredAt: now,
				Body:    posthorn.AppendBody(nil, "", "cases.updated", now, data),
				Targets: []store.PublishTarget{{Endpoint: to.endpoint, Parked: true}},
			}
		}
		if _, err := s.Publish(b.Context(), store.Publication{Tenant: to.tenant, SetVersion: to.version, At: now, Events: events}); err != nil {
			b.Fatal(err)
		}
		works, _, _, err := s.ClaimParked(b.Context(), to.endpoint, len(events))
		if err != nil || len(works) != len(events) {
			b.Fatalf("claimed %d of %d, %v", len(works), len(events), err)
		}
		for i := range works {
			results.Add(1)
			s.Record(store.Result{
				ID: works[i].ID, Endpoint: to.endpoint, Tenant: to.tenant, EndedAt: now, Policy: posthorn.DefaultPolicy(),
				Attempt: posthorn.Attempt{Number: 1, At: now, Duration: time.Millisecond, Status: 204},
			}, func(store.Recorded, error) { results.Done() })
		}
		results.Wait()
		done += len(events)
	}
}
