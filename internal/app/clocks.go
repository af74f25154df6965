package app

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/posthorn/posthorn/internal/clock"
	"github.com/posthorn/posthorn/internal/config"
	"github.com/posthorn/posthorn/internal/doctor"
	"github.com/posthorn/posthorn/internal/store/postgres"
)

// clockJudge is a store whose database has a clock of its own.
type clockJudge interface {
	// ClockTrouble says what is wrong with it; nil for nothing.
	ClockTrouble() error
	// ClockWrong reports whether this machine's is.
	ClockWrong() bool
}

// databaseClock says what is wrong with the database's clock; nil for nothing, and
// where it has none.
func (n *node) databaseClock() error {
	if j, ok := n.store.(clockJudge); ok {
		return j.ClockTrouble()
	}
	return nil
}

// clockTrouble says what is wrong with the clock that waits go by although the node is
// ready; nil for nothing.
func (n *node) clockTrouble() error {
	if err := n.databaseClock(); err != nil {
		return err
	}
	if s := n.clock.State(); s.Jump != 0 {
		return &clock.JumpError{Jump: s.Jump}
	}
	return nil
}

// readBack has nothing wait longer than it had to because a clock was ahead when its
// wait began.
func (n *node) readBack(ctx context.Context) error {
	read, err := n.store.ReadBack(ctx, n.now(), n.policy)
	if read > 0 {
		n.log.Warn("deliveries wait since a time that is still to come: the clock was ahead and was set right. They wait no longer than they had to", "deliveries", read)
	}
	return err
}

// watchClocks tells what is known of the clocks.
func (n *node) watchClocks() {
	n.metrics.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "posthorn_clock_ahead_seconds",
		Help: "How far this machine's clock is ahead of the time that waits and retention go by: on PostgreSQL the database's."},
		func() float64 { return n.clock.Wall().Sub(n.now()).Seconds() }))
	doubted := func(what string, is func() bool) {
		n.metrics.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "posthorn_clock_doubted",
			Help: "1 for a clock that is wrong: this node's, the database's, or one that has jumped within the last hour.", ConstLabels: prometheus.Labels{"what": what}},
			func() float64 {
				if is() {
					return 1
				}
				return 0
			}))
	}
	doubted("jump", func() bool { return n.clock.State().Jump != 0 })
	if j, ok := n.store.(clockJudge); ok {
		doubted("node", j.ClockWrong)
		doubted("database", func() bool { return j.ClockTrouble() != nil })
	}
}

// byNTP is the command that sets a machine's clock right.
const byNTP = "timedatectl set-ntp true"

// checkClocks compares the clocks of the nodes, of the database and of this machine.
func checkClocks(ctx context.Context, cfg *config.Config) []doctor.Finding {
	if !config.IsPostgres(cfg.StorePath) {
		return one(doctor.Skip("there is one, this machine's"))
	}
	s, err := OpenStore(ctx, cfg.StorePath)
	if err != nil {
		return one(doctor.Skip("the store cannot be opened"))
	}
	defer s.Close() // nothing was written
	nodes, own, err := s.(*postgres.Store).Clocks(ctx, time.Now)
	if err != nil {
		return one(doctor.Fault("psql "+config.ShownStore(cfg.StorePath), "the nodes' clocks cannot be read: %v", err))
	}
	return judgeClocks(nodes, own)
}

// judgeClocks says what is wrong with clocks, as far as they are ahead of the
// database's: those of the nodes, and this machine's.
func judgeClocks(nodes []postgres.ClockOf, own time.Duration) []doctor.Finding {
	var found []doctor.Finding
	right, wrong := 0, 0
	var ahead time.Duration // of those that are right
	for _, node := range nodes {
		if node.Wrong {
			wrong++
			found = append(found, doctor.Fault(byNTP+" (on that node)", "the clock of one of %d nodes is %+.1f s from the database's: it takes, sends and deletes nothing", len(nodes), node.Ahead.Seconds()))
			continue
		}
		right, ahead = right+1, node.Ahead
	}
	switch {
	case right > 0 && ahead.Abs() > clock.Apart:
		return append(found, doctor.Fault(byNTP+" (on the database's machine)", "the database's clock is %+.1f s from that of the nodes: nothing expires or is deleted by its age", -ahead.Seconds()))
	case len(nodes) == 0 && own.Abs() > clock.Apart:
		return append(found, doctor.Fault(byNTP, "this machine's clock is %+.1f s from the database's", own.Seconds()))
	case wrong > 0:
		return found
	case len(nodes) == 0:
		return one(doctor.Fine("the database's is this machine's; no node serves now"))
	}
	return one(doctor.Fine("those of %d nodes and the database agree", len(nodes)))
}
