package sim

import (
	"context"
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/lane"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/sqlite"
)

// answering acknowledges after a millisecond.
type answering struct{}

func (answering) Send(context.Context, *store.Target, *store.Work, lane.Gate) posthorn.Attempt {
	began := time.Now()
	wait(time.Millisecond)
	return posthorn.Attempt{At: began, Duration: time.Since(began), Class: posthorn.ClassOK, Status: 200}
}

// BenchmarkPath is publish, attempt and record on a real disk in real time, with
// 64 publishers, ten endpoints, and no HTTP: what the store and the engine
// sustain. It reports how long a delivery waited for its attempt.
func BenchmarkPath(b *testing.B) {
	s, err := sqlite.Open(b.Context(), sqlite.Options{Path: filepath.Join(b.TempDir(), "posthorn.db")})
	if err != nil {
		b.Fatal(err)
	}
	var done, late atomic.Int64
	e := lane.New(lane.Config{Store: s, Sender: answering{}, Observe: func(o lane.Observation) {
		done.Add(1)
		late.Add(int64(o.Lag))
	}})
	s.WatchSettling(e.Notice)
	if err := e.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	tenant, err := s.CreateTenant(b.Context(), store.Change{Actor: "test", At: time.Now()}, "acme")
	if err != nil {
		b.Fatal(err)
	}
	var endpoints []int64
	for i := range 10 {
		p, err := s.CreateEndpoint(b.Context(), store.Change{Actor: "test", At: time.Now()}, posthorn.Endpoint{
			Ref: posthorn.NewRef(posthorn.EndpointPrefix, time.Now()), Tenant: tenant.ID, URL: fmt.Sprintf("http://r%d.receivers.net", i),
			Events: []posthorn.Pattern{"cases.*"}, Status: posthorn.StatusActive, CreatedAt: time.Now(), UpdatedAt: time.Now(),
		}, func(int64) (store.Sealed, error) { return store.Sealed{KeyID: "none", Box: []byte("x")}, nil }, 0)
		if err != nil {
			b.Fatal(err)
		}
		endpoints = append(endpoints, p.ID)
	}
	set, err := s.EndpointSet(b.Context(), tenant.ID)
	if err != nil {
		b.Fatal(err)
	}
	data := make([]byte, 500)
	for i := range data {
		data[i] = '1'
	}
	b.ResetTimer()
	var next, parked atomic.Int64
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for {
				n := next.Add(1)
				if n > int64(b.N) {
					return
				}
				at := time.Now()
				target := endpoints[n%10]
				ev := store.NewEvent{Type: "cases.updated", Hash: sha256.Sum256(nil), OccurredAt: at, Body: posthorn.AppendBody(nil, "", "cases.updated", at, data)}
				slot := e.Reserve(tenant.ID, target, len(ev.Body))
				ev.Targets = []store.PublishTarget{{Endpoint: target, Parked: slot.Parked()}}
				acc, err := s.Publish(b.Context(), store.Publication{Tenant: tenant.ID, SetVersion: set.Version, At: at, Events: []store.NewEvent{ev}})
				if err != nil {
					slot.Release()
					b.Error(err)
					return
				}
				if slot.Parked() {
					parked.Add(1)
					slot.Stored()
					continue
				}
				slot.Accept(store.Work{ID: acc[0].ID + 1, Event: acc[0].ID, Type: ev.Type, Tenant: tenant.ID, Endpoint: target, AcceptedAt: at, Size: len(ev.Body), Body: ev.Body})
			}
		})
	}
	wg.Wait()
	for done.Load() < int64(b.N) {
		wait(time.Millisecond)
	}
	b.StopTimer()
	b.ReportMetric(float64(late.Load())/float64(b.N)/1e6, "ms-late/op")
	b.ReportMetric(100*float64(parked.Load())/float64(b.N), "%parked")
	if err := e.Drain(b.Context()); err != nil {
		b.Fatal(err)
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
}
