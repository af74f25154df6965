package hell_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/posthorn/posthorn/internal/hell"
	"github.com/posthorn/posthorn/internal/proof"
	"github.com/posthorn/posthorn/internal/tally"
)

// TestHostileReceiversTakeLittleMemory holds many connections of a service at the
// point where each takes most, and looks at what the process grew by.
func TestHostileReceiversTakeLittleMemory(t *testing.T) {
	endpoints := 150
	if os.Getenv("POSTHORN_TORTURE") == "long" {
		endpoints = 1000
	}
	var lines strings.Builder
	for i := 0; lines.Len() < 63<<10; i++ {
		fmt.Fprintf(&lines, "%x:\r\n", i)
	}
	const ok = "HTTP/1.1 200 OK\r\n"
	much := []byte(strings.Repeat("x", 64<<10))
	flood := func(c net.Conn) { hell.Flood(c, much) }
	for _, tt := range []struct {
		name   string
		answer string
		then   func(net.Conn)
		// perAttempt is what one may take, in KiB.
		perAttempt int
	}{
		{"a header of 63 KiB, then silence", ok + "X: " + strings.Repeat("x", 63<<10), hell.Stall, 256},
		{"63 KiB of short headers, then silence", ok + lines.String(), hell.Stall, 256},
		{"body of 4 KiB, then silence", ok + "\r\n" + strings.Repeat("x", 4<<10), hell.Stall, 128},
		{"endless body", ok + "\r\n", flood, 128},
		{"endless headers", ok + "X: ", flood, 256},
		{"gzip bombs", ok + "Content-Encoding: gzip\r\n\r\n" + hell.Bomb, hell.Stall, 128},
	} {
		t.Run(tt.name, func(t *testing.T) {
			// What is held counts, so what is let go of is collected as Go does it and
			// not kept until there are a hundred MiB of it.
			p := startProcess(t, "GOGC=100")
			var open, most, all atomic.Int64
			r := hell.Listen(t, nil, func(r *hell.Receiver, c net.Conn) {
				n := open.Add(1)
				defer open.Add(-1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				hell.Once(func(c net.Conn) {
					io.WriteString(c, tt.answer)
					all.Add(1)
					tt.then(c)
				})(r, c)
			})
			p.endpoints(t, endpoints, r.URL(), "*")
			before := p.memory(t, "VmHWM")
			p.publish(t, 1, "cases.closed")
			eventually(t, "an attempt at each under way", func() bool { return all.Load() >= int64(endpoints) })
			grown, still := 0, 0
			eventually(t, "the process grows no more", func() bool {
				now := p.memory(t, "VmHWM") - before
				if now > grown {
					grown, still = now, 0
				}
				still++
				return still > 60
			})
			t.Logf("%d attempts, %d at a time: %d MiB before, grown by %d MiB, %d KiB an attempt", all.Load(), most.Load(), before>>10, grown>>10, grown/int(most.Load()))
			bound := 64<<10 + tt.perAttempt*int(most.Load())
			if proof.RaceDetector {
				bound *= 2
			}
			if grown > bound {
				t.Errorf("the process grew by %d MiB, want at most %d MiB", grown>>10, bound>>10)
			}
			tally.Count(t, "hostile receivers do not grow the process", int(all.Load()))
		})
	}
}
