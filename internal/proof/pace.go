package proof

import (
	"sync"
	"sync/atomic"
	"time"
)

// Pace is work that is done at a steady rate: each piece has a number, and begins when
// its time comes, or when one of those who do it is free.
type Pace struct {
	next atomic.Int64
	stop chan struct{}
	wg   sync.WaitGroup
	errs chan error
}

// Steady has so many goroutines call do, with 0, 1, 2 and so on, that often a second. One
// whose call fails makes no more. [Pace.Finish] must be called once.
func Steady(rate float64, at int, do func(n int) error) *Pace {
	p := &Pace{stop: make(chan struct{}), errs: make(chan error, at)}
	start := time.Now()
	for range at {
		p.wg.Go(func() {
			if err := p.work(start, rate, do); err != nil {
				p.errs <- err
			}
		})
	}
	return p
}

func (p *Pace) work(start time.Time, rate float64, do func(n int) error) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		n := int(p.next.Add(1) - 1)
		timer.Reset(time.Until(start.Add(time.Duration(float64(n) / rate * float64(time.Second)))))
		select {
		case <-timer.C:
		case <-p.stop:
			return nil
		}
		if err := do(n); err != nil {
			return err
		}
	}
}

// Numbered is how many numbers have been given out.
func (p *Pace) Numbered() int { return int(p.next.Load()) }

// Finish lets the calls under way end, begins no more, and returns [Pace.Wrong].
func (p *Pace) Finish() error {
	close(p.stop)
	p.wg.Wait()
	return p.Wrong()
}

// Wrong returns the error of a call that failed, each once; nil for none.
func (p *Pace) Wrong() error {
	select {
	case err := <-p.errs:
		return err
	default:
		return nil
	}
}
