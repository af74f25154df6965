package app

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/posthorn/posthorn/internal/config"
	"github.com/posthorn/posthorn/internal/doctor"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/postgres"
)

// upkeepFigures reads how the upkeep stands once per scrape.
type upkeepFigures struct{ store store.Tended }

var (
	upkeepSwept = prometheus.NewDesc("posthorn_housekeeping_age_seconds",
		"Since a node last did the housekeeping, on which retention and deletions depend; absent if the store did not answer.", nil, nil)
	upkeepAhead = prometheus.NewDesc("posthorn_tables_ahead_seconds",
		"For how long from now there are tables for what is published; absent if the store did not answer.", nil, nil)
)

// watchUpkeep tells what one node does for all, where nodes share the store.
func (m *metrics) watchUpkeep(s store.Store) {
	if t, ok := s.(store.Tended); ok {
		m.registry.MustRegister(&upkeepFigures{t})
	}
}

func (f *upkeepFigures) Describe(c chan<- *prometheus.Desc) {
	c <- upkeepSwept
	c <- upkeepAhead
}

func (f *upkeepFigures) Collect(c chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	u, err := f.store.Upkeep(ctx)
	if err != nil {
		return
	}
	c <- prometheus.MustNewConstMetric(upkeepSwept, prometheus.GaugeValue, u.Swept.Seconds())
	c <- prometheus.MustNewConstMetric(upkeepAhead, prometheus.GaugeValue, u.Ahead.Seconds())
}

// checkUpkeep looks whether somebody does what one node does for all, and who else may
// come near the database. Of the latter nothing is wrong: whom an operator lets in, and
// why, is not known here.
func checkUpkeep(ctx context.Context, cfg *config.Config) []doctor.Finding {
	if !config.IsPostgres(cfg.StorePath) {
		return nil
	}
	s, err := OpenStore(ctx, cfg.StorePath)
	if err != nil {
		return one(doctor.Skip("the store cannot be opened"))
	}
	defer s.Close() // nothing was written
	found := upkeepFindings(ctx, cfg, s.(store.Tended))
	strangers, err := s.(*postgres.Store).LookForStrangers(ctx)
	if err != nil {
		return append(found, doctor.Skip("who may log in cannot be told: %v", err))
	}
	if len(strangers.Reach) > 0 {
		found = append(found, doctor.Fine("note: %s may lock all tables of posthorn, and so stop it, by USAGE on its schema: docs/postgres.md, \"The outbox\", has a narrower grant",
			strings.Join(strangers.Reach, ", ")))
	}
	switch {
	case strangers.Logins == 0:
	case strangers.Public || strangers.Temporary:
		found = append(found, doctor.Fine("note: %d other logins may connect to the database, as every one may (PUBLIC): docs/postgres.md, \"Who may log in\", has the REVOKE", strangers.Logins))
	}
	return found
}

func upkeepFindings(ctx context.Context, cfg *config.Config, s store.Tended) (found []doctor.Finding) {
	look := fmt.Sprintf(`psql %s -c "SELECT a.pid, a.usename, a.application_name, a.state, a.query FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.relation = 'posthorn.locks'::regclass" (who holds it), journalctl -u posthorn -n 50`,
		config.ShownStore(cfg.StorePath))
	u, err := s.Upkeep(ctx)
	switch {
	case err != nil:
		return one(doctor.Fault("posthorn migrate --store "+shownFlag(cfg.StorePath), "how the housekeeping stands cannot be told: %v", err))
	case u.Nodes == 0:
		return one(doctor.Skip("no node serves the database now"))
	case u.Swept > store.SweptLate:
		found = append(found, doctor.Fault(look, "no node has done the housekeeping for %s: nothing is deleted meanwhile", u.Swept.Round(time.Second)))
	default:
		found = append(found, doctor.Fine("a node did the housekeeping %s ago", u.Swept.Round(time.Second)))
	}
	if u.Ahead < store.AheadShort {
		found = append(found, doctor.Fault(look, "the tables for what is published are made for %s only, not for a week ahead", max(0, u.Ahead).Round(time.Minute)))
	}
	return found
}
