package lane

import (
	"context"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// instant is a store and a receiver that take no time.
type instant struct{ store.Queue }

func (instant) Target(_ context.Context, id int64) (store.Target, error) {
	return store.Target{Endpoint: posthorn.Endpoint{ID: id, Tenant: id % 10, Status: posthorn.StatusActive}}, nil
}
func (instant) Sending(context.Context) (bool, error) { return true, nil }
func (instant) ParkedEndpoints(context.Context, int64, int) ([]int64, error) {
	return nil, nil
}
func (instant) ClaimDue(context.Context, time.Time, int) ([]store.Work, time.Time, error) {
	return nil, time.Time{}, nil
}
func (instant) MayAttempt(context.Context, store.Hold) bool { return true }
func (instant) Record(_ store.Result, done func(store.Recorded, error)) {
	done(store.Recorded{Progress: posthorn.Progress{State: posthorn.Succeeded}}, nil)
}
func (instant) Send(_ context.Context, _ *store.Target, _ *store.Work, g Gate) posthorn.Attempt {
	if g.Enter() {
		g.Leave()
	}
	return posthorn.Attempt{Class: posthorn.ClassOK}
}

// BenchmarkDelivery is what the engine itself costs per delivery.
func BenchmarkDelivery(b *testing.B) {
	done := make(chan struct{}, 1<<20)
	e := New(Config{Store: instant{}, Sender: instant{}, QueuePerLane: 1 << 20, QueueBytes: 1 << 40,
		Observe: func(Observation) { done <- struct{}{} }})
	if err := e.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	body := make([]byte, 500)
	// The lanes' targets are loaded first.
	for id := range int64(100) {
		e.Reserve(id%10, id, 500).Accept(store.Work{ID: posthorn.ID(id + 1), Endpoint: id, Body: body})
	}
	for range 100 {
		<-done
	}
	b.ReportAllocs()
	sent, n := 0, int64(0)
	for b.Loop() {
		n++
		e.Reserve(n%10, n%100, 500).Accept(store.Work{ID: posthorn.ID(n), Endpoint: n % 100, Body: body})
		if sent++; sent > 1000 {
			<-done
			sent--
		}
	}
	for ; sent > 0; sent-- {
		<-done
	}
	if err := e.Drain(b.Context()); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkReserve is what a publish pays for each endpoint that matched.
func BenchmarkReserve(b *testing.B) {
	e := New(Config{Store: instant{}, Sender: instant{}})
	if err := e.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	n := int64(0)
	for b.Loop() {
		n++
		e.Reserve(1, n%1000, 500).Release()
	}
	if err := e.Drain(b.Context()); err != nil {
		b.Fatal(err)
	}
}
