package app

import (
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/config"
	"github.com/posthorn/posthorn/internal/lane"
	"github.com/posthorn/posthorn/internal/store"
)

// BenchmarkObserve is what the log line and the metrics of an attempt cost.
func BenchmarkObserve(b *testing.B) {
	log, flush := newLogger(io.Discard, &config.Config{LogFormat: "json", LogLevel: slog.LevelInfo})
	defer flush()
	n := &node{log: log, metrics: newMetrics(), now: time.Now}
	o := lane.Observation{
		Work:     &store.Work{ID: 2, Event: 1, Type: "cases.updated"},
		Target:   &store.Target{Endpoint: posthorn.Endpoint{Ref: "wh_01", URL: "https://partner.example.com/hooks/posthorn"}},
		Attempt:  posthorn.Attempt{Number: 1, Status: 204, Duration: time.Millisecond},
		Recorded: store.Recorded{Progress: posthorn.Progress{State: posthorn.Succeeded, Attempts: 1}},
	}
	b.ReportAllocs()
	for b.Loop() {
		n.observe(o)
	}
}
