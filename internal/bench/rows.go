package bench

import "fmt"

// rows are the round's figures against what they must reach. Latencies compare
// to those of a disk that syncs in less than a millisecond.
func (r *round) rows() []Row {
	rate := r.single.DeliveredPerSecond
	relay, raw := r.single.Relay, r.single.Raw
	rows := []Row{
		info("raw: signed requests without a service", raw.PerSecond, "/s"),
		info("relay: two hops and a signature", relay.PerSecond, "/s"),
		info("relay's CPU", 1000*relay.CPU, "µs"),
		info("processors that other processes kept busy during the single publishes", r.single.Others, ""),
		atLeast("single publishes, delivered, to relay", relay.Ratio, 0.70, "times", "%.0f/s", rate),
		fastEnough(atLeast("single publishes, delivered, where raw reaches 20,000/s", rate, 8000, "/s", "raw %.0f/s", raw.PerSecond), raw.PerSecond),
		atLeast("batches of 100, delivered, to raw", r.batch.Raw.Ratio, 0.60, "times", "%.0f/s to %.0f/s", r.batch.DeliveredPerSecond, r.batch.Raw.PerSecond),
		atMost("CPU per delivery beyond relay's", 1000*(r.single.ServerCPU-relay.CPU), 45, "µs", "%.0f µs in all", 1000*r.single.ServerCPU),
		atMost("publish to receipt at 100/s, p50", r.slow.Receipt.P50, 1.5, "ms", "relay %.2f ms", r.slow.Relay.Receipt.P50),
		atMost("publish to receipt at 100/s, p99", r.slow.Receipt.P99, 5, "ms", "relay %.2f ms", r.slow.Relay.Receipt.P99),
		atMost("publish to receipt at 1,000/s, p50", r.steady.Receipt.P50, 2, "ms", "relay %.2f ms", r.steady.Relay.Receipt.P50),
		atMost("publish to receipt at 1,000/s, p99", r.steady.Receipt.P99, 10, "ms", "relay %.2f ms", r.steady.Relay.Receipt.P99),
		atMost("with the default limits at one host: publish to receipt at 1,000/s, p99", r.limited.Receipt.P99, 10, "ms", "%.2f ms without", r.steady.Receipt.P99),
		atLeast("limits at one host that are not reached: delivered, to none", r.counted.DeliveredPerSecond/rate, 0.9, "times",
			"%.0f/s; CPU %.0f µs to %.0f µs", r.counted.DeliveredPerSecond, 1000*r.counted.ServerCPU, 1000*r.single.ServerCPU),
	}
	for _, d := range []struct {
		name string
		pair pair
	}{{"five of ten hang", r.hanging}, {"nine of ten fail", r.failing}} {
		was, is := r.undisturbed.open.Receipt.P99, d.pair.open.Receipt.P99
		rows = append(rows,
			atMost(d.name+": healthy p99 above 1.2 times or 1 ms over the undisturbed", is-max(1.2*was, was+1), 0, "ms", "%.2f ms to %.2f ms", is, was),
			atLeast(d.name+": publishing, to the undisturbed", d.pair.closed.AcceptedPerSecond/r.undisturbed.closed.AcceptedPerSecond, 0.9, "times",
				"%.0f/s to %.0f/s", d.pair.closed.AcceptedPerSecond, r.undisturbed.closed.AcceptedPerSecond))
	}
	return append(rows,
		atLeast("fan-out to 1,000, delivered, to one endpoint's", r.fanOut.DeliveredPerSecond/rate, 0.8, "times", "%.0f/s", r.fanOut.DeliveredPerSecond),
		atLeast("10,000 endpoints of 1,000 tenants, to one endpoint's", r.manyLoad.DeliveredPerSecond/rate, 0.8, "times", "%.0f/s", r.manyLoad.DeliveredPerSecond),
		atLeast(fmt.Sprintf("%d pending: delivered, to the empty store's", r.full.c.Backlog), r.fullLoad.DeliveredPerSecond/rate, 0.8, "times", "%.0f/s", r.fullLoad.DeliveredPerSecond),
		atMost(fmt.Sprintf("%d pending: anonymous memory", r.full.c.Backlog), r.fullLoad.PeakAnon, 200, "MiB", ""),
		atMost(fmt.Sprintf("%d pending: restart to first delivery", r.full.c.Backlog), r.restart.Seconds(), 3, "s", ""),
		atMost("idle: anonymous memory", r.idle.anon, 30, "MiB", ""),
		atMost("idle: share of a core", r.idle.cpu, 0.5, "%", ""),
		atLeast("a thousand endpoints hang: the others' rate", r.thousandHang.DeliveredPerSecond/r.healthy.DeliveredPerSecond, 0.9, "times",
			"%.0f/s to %.0f/s", r.thousandHang.DeliveredPerSecond, r.healthy.DeliveredPerSecond),
		atMost("written to disk per delivery", r.single.WrittenKiB, 12, "KiB", ""),
	)
}

func atLeast(name string, value, bound float64, unit, note string, args ...any) Row {
	return Row{Name: name, Value: value, Bound: bound, AtLeast: true, Unit: unit, Note: fmt.Sprintf(note, args...)}
}

func atMost(name string, value, bound float64, unit, note string, args ...any) Row {
	return Row{Name: name, Value: value, Bound: bound, Unit: unit, Note: fmt.Sprintf(note, args...)}
}

func info(name string, value float64, unit string) Row {
	return Row{Name: name, Value: value, Unit: unit, Info: true}
}

// fastEnough leaves a row without its bound on a machine that is slower than the
// one it is meant for.
func fastEnough(r Row, raw float64) Row {
	r.Info = raw < 20_000
	return r
}
