package cli

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/posthorn/posthorn/client"
)

func (r *runner) endpointStats() *cobra.Command {
	var since string
	c := &cobra.Command{
		Use: "stats [ID]", Short: "Count what an endpoint, or all of them, were sent", ValidArgsFunction: first(r.endpointIDs),
		Annotations: calls("GET /endpoints/{webhookId}/stats", "GET /stats"),
		Example: `  posthorn endpoint stats wh_01J1C6ZGQ6FQTH2X6M2VS3P0XW --since 7d
  posthorn endpoint stats -o json`,
		Long: "Counts attempts and how deliveries ended, by the hour up to seven days back, else by\n" +
			"the day (UTC), with the success rate and percentiles of how long attempts took. These\n" +
			"are counted in ranges: the exact one lies within the range that is printed beside it.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				if err := takes("ID")(cmd, args); err != nil {
					return err
				}
			}
			from, err := r.moment("since", since, -1)
			if err != nil {
				return err
			}
			api, err := r.client()
			if err != nil {
				return err
			}
			var s *client.Stats
			if len(args) > 0 {
				s, err = api.EndpointStats(cmd.Context(), args[0], from)
			} else {
				s, err = api.Stats(cmd.Context(), from)
			}
			if err != nil {
				return err
			}
			if !r.wantsTable() {
				return r.printOne(s.JSON())
			}
			return r.showStats(s)
		},
	}
	c.Flags().StringVar(&since, "since", "", "counted from: `2h`, 7d or 2026-04-29T09:10:00Z (default 24h)")
	return c
}

func (r *runner) showStats(s *client.Stats) error {
	rate := "no attempts"
	if s.SuccessRate != nil {
		rate = percent(*s.SuccessRate)
	}
	d := s.Deliveries
	pairs := []string{
		"since", shown(s.Since),
		"attempts", fmt.Sprintf("%d succeeded, %d failed", s.Attempts.Succeeded, s.Attempts.Failed),
		"success rate", rate,
		"deliveries", fmt.Sprintf("%d succeeded, %d failed, %d canceled, %d expired", d.Succeeded, d.Failed, d.Canceled, d.Expired),
		"p50", latency(s.Latency.P50), "p95", latency(s.Latency.P95), "p99", latency(s.Latency.P99),
	}
	if isTerminal(r.Out) {
		var all, failed []int
		for _, slot := range s.Series {
			all, failed = append(all, slot.Attempts.Succeeded+slot.Attempts.Failed), append(failed, slot.Attempts.Failed)
		}
		top := slices.Max(append(all, 1))
		pairs = append(pairs, "all", sparkline(all, top), "failed", sparkline(failed, top))
	}
	if err := r.fields(pairs...); err != nil {
		return err
	}
	slot := "HOUR"
	if s.SlotSeconds > 3600 {
		slot = "DAY"
	}
	out := r.list(slot, "OK", "FAILED", "DELIVERED", "GIVEN UP", "P95")
	for _, one := range s.Series {
		if one.Attempts == (client.AttemptCounts{}) && one.Deliveries == (client.DeliveryCounts{}) {
			continue
		}
		tone := plain
		if one.Attempts.Failed > 0 {
			tone = yellow
		}
		p95 := ""
		if one.P95MS != nil {
			p95 = "~" + span(*one.P95MS)
		}
		d := one.Deliveries
		if err := out.add(nil, tone, shown(one.Start), fmt.Sprint(one.Attempts.Succeeded), fmt.Sprint(one.Attempts.Failed),
			fmt.Sprint(d.Succeeded), fmt.Sprint(d.Failed+d.Canceled+d.Expired), p95); err != nil {
			return err
		}
	}
	if len(out.rows) > 0 {
		fmt.Fprintln(r.Out)
	}
	return out.close("Nothing was sent in that time.")
}

// percent is rounded down: 100 % means all.
func percent(share float64) string {
	return fmt.Sprintf("%.2f %%", float64(int(share*1e4))/100)
}

// latency says what is known of a percentile.
func latency(l client.Latency) string {
	switch {
	case l.EstimateMS == nil || l.OverMS == nil:
		return ""
	case l.AtMostMS == nil:
		return "over " + span(*l.OverMS)
	}
	return fmt.Sprintf("about %s (%s to %s)", span(*l.EstimateMS), span(*l.OverMS), span(*l.AtMostMS))
}

// span writes milliseconds as people do.
func span(ms float64) string {
	d := time.Duration(ms * float64(time.Millisecond))
	if d >= time.Second {
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(100 * time.Microsecond).String()
}

// sparkline draws counts of at most top, which is as high as it goes; one that is
// not zero is never drawn as if it were.
func sparkline(counts []int, top int) string {
	bars := []rune(" ▁▂▃▄▅▆▇█")
	var b strings.Builder
	for _, n := range counts {
		b.WriteRune(bars[(n*(len(bars)-1)+top-1)/top])
	}
	return b.String()
}
