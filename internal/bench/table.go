package bench

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Plan says how the table is taken.
type Plan struct {
	// Base gives binary, folder, further flags of the server and Watch.
	Base Config
	// Runs is how often each figure is taken.
	Runs int
	// Quick makes the loads shorter and the backlog a tenth.
	Quick bool
}

// Table is all figures that Posthorn is held to, with the machine they are of.
type Table struct {
	Machine Machine `json:"machine"`
	Runs    int     `json:"runs"`
	Quick   bool    `json:"quick"`
	Rows    []Row   `json:"rows"`
}

// Row is a figure that must be reached. Value is the median of All.
type Row struct {
	Name    string    `json:"name"`
	Value   float64   `json:"value"`
	All     []float64 `json:"all"`
	Bound   float64   `json:"bound"`
	AtLeast bool      `json:"at_least"` // else at most
	Unit    string    `json:"unit"`
	// Note says what else was measured, in the last run.
	Note string `json:"note,omitempty"`
	// Info rows are not held to a bound.
	Info bool `json:"info,omitempty"`
}

// Met reports whether the figure is reached.
func (r Row) Met() bool {
	switch {
	case r.Info:
		return true
	case r.AtLeast:
		return r.Value >= r.Bound
	}
	return r.Value <= r.Bound
}

// Met reports whether all are.
func (t Table) Met() bool {
	return !slices.ContainsFunc(t.Rows, func(r Row) bool { return !r.Met() })
}

// RunTable takes all figures, round by round: what is compared stands in the
// same round.
func RunTable(ctx context.Context, p Plan) (t Table, err error) {
	t = Table{Runs: p.Runs, Quick: p.Quick}
	if t.Machine, err = ThisMachine(p.Base.Dir); err != nil {
		return t, err
	}
	if p.Base.Store != "" {
		err := t.takePostgres(ctx, p)
		return t, err
	}
	many, err := newNode(ctx, p.manyEndpoints())
	if err != nil {
		return t, err
	}
	defer many.Close()
	full, err := newNode(ctx, p.fullStore())
	if err != nil {
		return t, err
	}
	defer full.Close()
	for i := range p.Runs {
		r := round{plan: p, ctx: ctx, many: many, full: full, prefix: fmt.Sprintf("run %d of %d: ", i+1, p.Runs)}
		r.take()
		if r.err != nil {
			return t, r.err
		}
		t.add(r.rows())
	}
	return t, nil
}

// add takes a round's rows in.
func (t *Table) add(rows []Row) {
	if t.Rows == nil {
		t.Rows = make([]Row, len(rows))
	}
	for i, row := range rows {
		row.All = append(t.Rows[i].All, row.Value)
		row.Value = median(row.All)
		t.Rows[i] = row
	}
}

func median(all []float64) float64 {
	sorted := slices.Sorted(slices.Values(all))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// Print writes the table for people, in Markdown.
func (t Table) Print(out io.Writer) {
	fmt.Fprintf(out, "%s\n%d runs", t.Machine, t.Runs)
	if t.Quick {
		fmt.Fprint(out, ", the quick form: shorter loads, a tenth of the backlog")
	}
	fmt.Fprintf(out, "; where a row does not say otherwise, nodes serve with %s\n\n", shownHostLimits(noHostLimits))
	w := tabwriter.NewWriter(out, 0, 0, 1, ' ', 0)
	fmt.Fprintln(w, "| what\t| must be\t| median\t| all runs\t| \t| beside\t|")
	fmt.Fprintln(w, "|---\t|---\t|---\t|---\t|---\t|---\t|")
	for _, r := range t.Rows {
		verdict, bound := "met", "at most "
		if r.AtLeast {
			bound = "at least "
		}
		bound += number4(r.Bound) + " " + r.Unit
		switch {
		case r.Info:
			verdict, bound = "", ""
		case !r.Met():
			verdict = "MISSED"
		}
		all := make([]string, len(r.All))
		for i, v := range r.All {
			all[i] = number4(v)
		}
		fmt.Fprintf(w, "| %s\t| %s\t| %s %s\t| %s\t| %s\t| %s\t|\n", r.Name, bound, number4(r.Value), r.Unit, strings.Join(all, ", "), verdict, r.Note)
	}
	w.Flush()
}

// number4 prints about four digits and no exponent.
func number4(v float64) string {
	switch {
	case v >= 100 || v <= -100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// load is the plan's usual load: a closed loop on one endpoint, no yardsticks.
func (p Plan) load() Config {
	c := Default()
	c.Binary, c.Dir, c.ServeArgs, c.Watch = p.Base.Binary, p.Base.Dir, p.Base.ServeArgs, p.Base.Watch
	c.Relay, c.Raw = false, false
	if c.Duration = 6 * time.Second; p.Quick {
		c.Duration = 4 * time.Second
	}
	return c
}

func (p Plan) manyEndpoints() Config {
	c := p.load()
	c.Endpoints, c.Tenants = 10_000, 1000
	return c
}

func (p Plan) fullStore() Config {
	c := p.load()
	if c.Backlog = 1_000_000; p.Quick {
		c.Backlog /= 10
	}
	return c
}
