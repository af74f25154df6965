package bench

import (
	"fmt"
	"html"
	"io"
	"math"
	"strings"
)

// Plot writes the report as a picture (SVG): latencies by percentile, both axes
// logarithmic, and below them what arrived over time.
func (r Report) Plot(out io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", plotWidth, plotHeight)
	b.WriteString(`<rect width="100%" height="100%" fill="white"/>` + "\n")
	lines := []curve{
		{"publish to receipt", "#1f6feb", r.Receipt},
		{"publish to 202", "#2da44e", r.Publish},
	}
	if r.Relay != nil {
		lines = append(lines, curve{"relay: two hops and a signature", "#8b949e", r.Relay.Receipt})
	}
	plotLatencies(&b, lines)
	plotArrivals(&b, r.arrivals)
	b.WriteString("</svg>\n")
	_, err := io.WriteString(out, b.String())
	return err
}

const (
	plotWidth, plotHeight = 720, 560
	plotLeft, plotRight   = 70, 700
	latencyTop            = 40
	latencyBottom         = 330
	arrivalsTop           = 400
	arrivalsBottom        = 520
)

type curve struct {
	name, color string
	latency     Latency
}

// nines are the percentiles at the marks of the axis.
var nines = []float64{0, 90, 99, 99.9, 99.99}

func plotLatencies(b *strings.Builder, curves []curve) {
	text(b, plotLeft, 24, "start", "Latency by percentile, ms")
	lowest, highest := math.Inf(1), 0.1
	for _, c := range curves {
		if v := c.latency.at(0); v > 0 {
			lowest = min(lowest, v)
		}
		highest = max(highest, c.latency.at(nines[len(nines)-1]))
	}
	if math.IsInf(lowest, 1) {
		lowest = highest / 10
	}
	from, to := math.Floor(math.Log10(lowest)), math.Ceil(math.Log10(highest))
	y := func(ms float64) float64 {
		return latencyBottom - (math.Log10(max(ms, lowest))-from)/max(to-from, 1)*(latencyBottom-latencyTop)
	}
	for e := from; e <= to; e++ {
		v := math.Pow(10, e)
		rule(b, plotLeft, y(v), plotRight, y(v))
		text(b, plotLeft-6, y(v)+4, "end", fmt.Sprintf("%g", v))
	}
	x := func(q float64) float64 {
		most := float64(len(nines) - 1)
		return plotLeft + min(-math.Log10(1-q/100), most)/most*(plotRight-plotLeft)
	}
	for _, q := range nines {
		text(b, x(q), latencyBottom+18, "middle", fmt.Sprintf("%g %%", q))
	}
	for i, c := range curves {
		var points strings.Builder
		for step := range 161 {
			q := 100 * (1 - math.Pow(10, -float64(step)/40))
			fmt.Fprintf(&points, "%.1f,%.1f ", x(q), y(c.latency.at(q)))
		}
		fmt.Fprintf(b, `<polyline fill="none" stroke="%s" stroke-width="2" points="%s"/>`+"\n", c.color, points.String())
		fmt.Fprintf(b, `<rect x="%d" y="%d" width="10" height="10" fill="%s"/>`+"\n", plotLeft+12, latencyTop+8+18*i, c.color)
		text(b, plotLeft+28, float64(latencyTop+17+18*i), "start", c.name)
	}
}

func plotArrivals(b *strings.Builder, arrivals []int) {
	most := 1
	for _, n := range arrivals {
		most = max(most, n)
	}
	text(b, plotLeft, arrivalsTop-12, "start", fmt.Sprintf("Arrivals a second, over %.0f s; most %.0f", float64(len(arrivals))*arrivalStep.Seconds(), float64(most)/arrivalStep.Seconds()))
	rule(b, plotLeft, arrivalsBottom, plotRight, arrivalsBottom)
	width := float64(plotRight-plotLeft) / float64(max(len(arrivals), 1))
	for i, n := range arrivals {
		h := float64(n) / float64(most) * (arrivalsBottom - arrivalsTop)
		fmt.Fprintf(b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="#1f6feb"/>`+"\n",
			plotLeft+float64(i)*width, arrivalsBottom-h, max(width-1, 0.5), h)
	}
}

func rule(b *strings.Builder, x1, y1, x2, y2 float64) {
	fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#d0d7de"/>`+"\n", x1, y1, x2, y2)
}

func text(b *strings.Builder, x, y float64, anchor, s string) {
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="%s">%s</text>`+"\n", x, y, anchor, html.EscapeString(s))
}
