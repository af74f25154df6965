package bench

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/posthorn/posthorn/internal/proof"
)

// round takes every figure of the table once. Its methods do nothing after an
// error.
type round struct {
	plan   Plan
	ctx    context.Context
	prefix string
	many   *node // 10,000 endpoints
	full   *node // a million pending deliveries
	err    error

	single, batch, fanOut, manyLoad, fullLoad Report
	slow, steady                              Report // 100/s and 1,000/s
	limited, counted                          Report // with the default limits at one host, and with some that are not reached
	undisturbed, hanging, failing             pair
	healthy, thousandHang                     Report
	idle                                      idle
	restart                                   time.Duration
}

// pair is the same endpoints under an open and a closed loop.
type pair struct{ open, closed Report }

// idle is a server that has nothing to do.
type idle struct{ anon, cpu float64 } // MiB, percent of a core

func (r *round) take() {
	r.single = r.run("single publishes", func(c *Config) { c.Relay, c.Raw = true, true })
	r.batch = r.run("batches of 100", func(c *Config) { c.Batch, c.Conns, c.Raw = 100, 8, true })
	r.fanOut = r.run("fan-out to 1,000", func(c *Config) { c.Endpoints, c.FanOut, c.Conns = 1000, 1000, 1 })
	r.on(r.many, "10,000 endpoints of 1,000 tenants, opening connections")
	r.manyLoad = r.on(r.many, "10,000 endpoints of 1,000 tenants")
	r.fullLoad = r.on(r.full, "a full store")
	r.restartFull()
	r.slow = r.run("100/s", func(c *Config) { c.Rate, c.Duration, c.Relay = 100, 2*c.Duration, true })
	r.steady = r.run("1,000/s", func(c *Config) { c.Rate, c.Relay = 1000, true })
	r.limited = r.run("1,000/s, with the default limits", func(c *Config) { c.Rate, c.HostLimits = 1000, defaultHostLimits })
	r.counted = r.run("single publishes, with limits that are not reached", func(c *Config) { c.HostLimits = farHostLimits })
	r.undisturbed = r.pair("ten endpoints", func(c *Config) {})
	r.hanging = r.pair("five of ten hang", func(c *Config) { c.Hang = 5 })
	r.failing = r.pair("nine of ten fail", func(c *Config) { c.Fail = 9 })
	r.healthy = r.run("ten endpoints, alone", func(c *Config) { c.Endpoints = 10 })
	r.thousandHang = r.run("the same beside a thousand that hang", func(c *Config) {
		c.Endpoints, c.Hang, c.BadShare = 1010, 1000, 0.01
	})
	r.measureIdle()
}

func (r *round) config(what string) Config {
	c := r.plan.load()
	if watch := c.Watch; watch != nil {
		c.Watch = func(p Progress) {
			p.What = r.prefix + what + ": " + p.What
			watch(p)
		}
	}
	return c
}

func (r *round) run(what string, set func(*Config)) (report Report) {
	if r.err != nil {
		return report
	}
	c := r.config(what)
	set(&c)
	report, err := Run(r.ctx, c)
	r.check(what, report, err)
	return report
}

// pair publishes 1,000/s, then as fast as answers come.
func (r *round) pair(what string, set func(*Config)) (p pair) {
	both := func(c *Config) { c.Endpoints = 10; set(c) }
	p.open = r.run(what, func(c *Config) { both(c); c.Rate = 1000 })
	p.closed = r.run(what, both)
	return p
}

func (r *round) on(n *node, what string) (report Report) {
	if r.err != nil {
		return report
	}
	c := r.config(what)
	c.Endpoints, c.Tenants, c.Backlog = n.c.Endpoints, n.c.Tenants, n.c.Backlog
	report, err := n.measure(r.ctx, c)
	r.check(what, report, err)
	return report
}

func (r *round) check(what string, report Report, err error) {
	switch {
	case err != nil:
		r.err = fmt.Errorf("%s: %w", what, err)
	case report.Lost > 0:
		r.err = fmt.Errorf("%s: %d accepted events did not arrive", what, report.Lost)
	}
}

// restartFull kills the server with the full store, starts it again and takes
// the time until an event published to it arrives.
func (r *round) restartFull() {
	if r.err != nil {
		return
	}
	r.config("a full store").tell("restart")
	n := r.full
	n.server.Kill()
	l := newLedger(n.c, 1)
	n.receiver.ledger.Store(l)
	began := time.Now()
	if r.err = n.server.Launch(); r.err != nil {
		return
	}
	if r.err = n.server.Ready(r.ctx); r.err != nil {
		return
	}
	body := fmt.Sprintf(`{"type":%q,"data":{"n":%q}}`, eventType(0), strings.Repeat("0", numberWidth))
	if r.err = n.api(n.tokens[0]).Call(r.ctx, http.MethodPost, "/events", []byte(body), nil); r.err != nil {
		return
	}
	r.err = proof.Until(r.ctx, time.Millisecond, func() (bool, error) { return l.arrived.Load() > 0, nil })
	r.restart = time.Since(began)
}

// measureIdle watches a new server that has an endpoint and delivered to it.
func (r *round) measureIdle() {
	if r.err != nil {
		return
	}
	c := r.config("idle")
	n, err := newNode(r.ctx, c)
	if err != nil {
		r.err = err
		return
	}
	defer n.Close()
	body := fmt.Sprintf(`{"type":%q,"data":{"n":%q}}`, eventType(0), strings.Repeat("0", numberWidth))
	if r.err = n.api(n.tokens[0]).Call(r.ctx, http.MethodPost, "/events", []byte(body), nil); r.err != nil {
		return
	}
	c.tell("nothing to do")
	calm, length := 5*time.Second, 20*time.Second
	if r.plan.Quick {
		calm, length = 2*time.Second, 10*time.Second
	}
	if !pauseUntil(r.ctx, time.Now().Add(calm)) {
		r.err = r.ctx.Err()
		return
	}
	before := cpuTime(n.pid())
	if !pauseUntil(r.ctx, time.Now().Add(length)) {
		r.err = r.ctx.Err()
		return
	}
	r.idle.cpu = 100 * (cpuTime(n.pid()) - before).Seconds() / length.Seconds()
	_, r.idle.anon = memory(n.pid())
}
