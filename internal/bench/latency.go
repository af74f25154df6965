package bench

import (
	"fmt"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Latency holds percentiles in milliseconds. In an open loop they count from
// when an event was due, so that an answer that is slow makes those behind it
// late: no omission is coordinated with the server.
type Latency struct {
	P50  float64 `json:"p50_ms"`
	P90  float64 `json:"p90_ms"`
	P99  float64 `json:"p99_ms"`
	P999 float64 `json:"p999_ms"`
	Max  float64 `json:"max_ms"`

	h *hdrhistogram.Histogram
}

func (l Latency) String() string {
	return fmt.Sprintf("p50 %.2f  p90 %.2f  p99 %.2f  p99.9 %.2f  max %.1f ms", l.P50, l.P90, l.P99, l.P999, l.Max)
}

// at is a percentile in milliseconds.
func (l Latency) at(q float64) float64 {
	if l.h == nil {
		return 0
	}
	return float64(l.h.ValueAtQuantile(q)) / 1000
}

// histogram takes nanoseconds and keeps microseconds up to ten minutes with
// three digits.
type histogram struct{ h *hdrhistogram.Histogram }

const mostMicroseconds = 600_000_000

func newHistogram() histogram { return histogram{hdrhistogram.New(1, mostMicroseconds, 3)} }

func (h histogram) add(ns int64) {
	_ = h.h.RecordValue(min(max(ns/1000, 1), mostMicroseconds)) // cannot fail within the bounds
}

func (h histogram) latency() Latency {
	l := Latency{h: h.h, Max: float64(h.h.Max()) / 1000}
	l.P50, l.P90, l.P99, l.P999 = l.at(50), l.at(90), l.at(99), l.at(99.9)
	return l
}
