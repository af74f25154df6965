package bench

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// generator publishes over kept connections. It speaks HTTP/1.1 itself: it
// shares the machine's processors with what it measures.
type generator struct {
	config  Config
	ledger  *ledger
	request func() request
}

// run publishes for the load's duration and returns when all is answered.
func (g *generator) run(ctx context.Context) error {
	var wg sync.WaitGroup
	errs := make(chan error, g.config.Conns)
	for range g.config.Conns {
		wg.Go(func() {
			w := worker{generator: g, request: g.request()}
			if err := w.run(ctx); err != nil {
				errs <- err
			}
			w.close()
		})
	}
	wg.Wait()
	g.ledger.lastSent = g.ledger.now()
	select {
	case err := <-errs:
		return err
	default:
		return ctx.Err()
	}
}

type worker struct {
	*generator
	request request
	conn    net.Conn
	answers *bufio.Reader
	faults  int // connections lost in a row
}

func (w *worker) run(ctx context.Context) error {
	c, l := &w.config, w.ledger
	for ctx.Err() == nil {
		first := int(l.next.Add(int64(c.Batch))) - c.Batch
		due := l.now()
		if c.Rate > 0 {
			due = int64(float64(first) / c.Rate * float64(time.Second))
			if due < int64(c.Duration) && !pauseUntil(ctx, l.start.Add(time.Duration(due))) {
				return nil
			}
		}
		if due >= int64(c.Duration) || first+c.Batch > len(l.due) {
			return nil
		}
		for i := range c.Batch {
			l.due[first+i] = due
		}
		status, err := w.exchange(w.request.render(first))
		switch now := l.now(); {
		case err != nil:
			l.refuse(0, c.Batch)
			if w.faults++; w.faults > 3 {
				return err
			}
			w.close()
			continue
		case status != w.request.want:
			l.refuse(status, c.Batch)
			if status != http.StatusServiceUnavailable && status != http.StatusTooManyRequests {
				return fmt.Errorf("answered %d, want %d", status, w.request.want)
			}
		default:
			for i := range c.Batch {
				l.accepted[first+i] = now
			}
		}
		w.faults = 0
	}
	return nil
}

// pauseUntil waits without the timers of the runtime, which round to a
// millisecond; it reports false when ctx ended.
func pauseUntil(ctx context.Context, at time.Time) bool {
	for ctx.Err() == nil {
		wait := time.Until(at)
		if wait <= 0 {
			return true
		}
		pause(min(wait, 100*time.Millisecond))
	}
	return false
}

// exchange sends one request and reads its answer.
func (w *worker) exchange(b []byte) (status int, err error) {
	if w.conn == nil {
		if w.conn, err = net.DialTimeout("tcp", w.request.address, 5*time.Second); err != nil {
			return 0, err
		}
		w.answers = bufio.NewReader(w.conn)
	}
	if _, err := w.conn.Write(b); err != nil {
		return 0, err
	}
	resp, err := http.ReadResponse(w.answers, nil)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return 0, err
	}
	if resp.Close {
		w.close()
	}
	return resp.StatusCode, nil
}

func (w *worker) close() {
	if w.conn != nil {
		w.conn.Close()
		w.conn = nil
	}
}
