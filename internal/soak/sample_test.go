package soak

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// sample is what the process has and holds at a moment, by the name of the column.
type sample map[string]float64

// columns of a sample, in the order in which they are printed.
var columns = []string{"second", "rss", "anonymous", "heap", "heap goal", "files", "goroutines", "threads",
	"store", "log", "temporary", "events", "in memory", "in flight", "lanes", "open", "connections"}

// watch takes a sample every five seconds until the returned function is called, which
// returns them.
func (w *world) watch() (end func() []sample) {
	every := 5 * time.Second
	if w.short() {
		every = time.Second
	}
	stop, all := make(chan struct{}), make(chan []sample)
	go func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		var samples []sample
		for {
			s, err := w.sample()
			if err != nil {
				w.ledger.fault("a sample: %v", err)
			} else {
				samples = append(samples, s)
			}
			select {
			case <-tick.C:
			case <-stop:
				all <- samples
				return
			}
		}
	}()
	return func() []sample { close(stop); return <-all }
}

func (w *world) sample() (sample, error) {
	m, err := w.metrics()
	if err != nil {
		return nil, err
	}
	proc := fmt.Sprintf("/proc/%d/", w.server.PID())
	status, err := fields(proc + "status")
	if err != nil {
		return nil, err
	}
	files, err := os.ReadDir(proc + "fd")
	if err != nil {
		return nil, err
	}
	s := sample{
		"second": time.Since(w.began).Seconds(),
		"rss":    status["VmRSS"] * 1024, "anonymous": status["RssAnon"] * 1024, "threads": status["Threads"],
		"heap": m["go_memstats_heap_alloc_bytes"], "heap goal": m["go_memstats_next_gc_bytes"],
		"files": float64(len(files)), "goroutines": m["go_goroutines"],
		"events": m["posthorn_events_published_total"], "in memory": m["posthorn_deliveries_in_memory"],
		"in flight": m["posthorn_attempts_in_flight"], "lanes": m["posthorn_lanes"],
		"open": m["posthorn_deliveries_open"], "connections": m["posthorn_connections_open"],
		"temporary": w.temporary(),
	}
	s["store"], s["log"], err = w.sizes()
	return s, err
}

// fields reads the numbers of a file of "Name: number" lines.
func fields(path string) (map[string]float64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	got := map[string]float64{}
	for line := range strings.Lines(string(b)) {
		name, rest, _ := strings.Cut(line, ":")
		if f := strings.Fields(rest); len(f) > 0 {
			if v, err := strconv.ParseFloat(f[0], 64); err == nil {
				got[name] = v
			}
		}
	}
	return got, nil
}

// sizes are the bytes of the store and of its log.
func (w *world) sizes() (store, log float64, err error) {
	if w.db != nil {
		c, err := pgx.Connect(w.ctx, w.db.URL())
		if err != nil {
			return 0, 0, err
		}
		defer c.Close(w.ctx)
		err = c.QueryRow(w.ctx, "SELECT pg_database_size(current_database())").Scan(&store)
		return store, 0, err
	}
	size := func(path string) float64 {
		info, err := os.Stat(path)
		if err != nil {
			return 0
		}
		return float64(info.Size())
	}
	return size(w.server.File()), size(w.server.File() + "-wal"), nil
}

// temporary are the bytes of what the process and its commands leave beside the store and
// where temporary files go, those that have no name any more included.
func (w *world) temporary() (sum float64) {
	base := filepath.Base(w.server.File())
	for _, dir := range []string{w.temp, filepath.Dir(w.server.File())} {
		entries, _ := os.ReadDir(dir) // a backup may go meanwhile
		for _, e := range entries {
			info, err := e.Info()
			if err != nil || strings.HasPrefix(e.Name(), base) || e.Name() == "serve.log" || strings.HasPrefix(e.Name(), "backup.db") {
				continue
			}
			sum += float64(info.Size())
		}
	}
	held, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", w.server.PID()))
	for _, fd := range held {
		if name, err := os.Readlink(fd); err == nil && strings.HasSuffix(name, " (deleted)") {
			if info, err := os.Stat(fd); err == nil {
				sum += float64(info.Size())
			}
		}
	}
	return sum
}

// metrics are the figures of /metrics by name and labels.
type metrics map[string]float64

func (w *world) metrics() (metrics, error) {
	resp, err := (&http.Client{Timeout: 10 * time.Second}).Get("http://" + w.ops + "/metrics")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	m := metrics{}
	in := bufio.NewScanner(resp.Body)
	for in.Scan() {
		name, value, ok := cutLast(in.Text())
		if v, err := strconv.ParseFloat(value, 64); ok && err == nil && !strings.HasPrefix(name, "#") {
			m[name] = v
		}
	}
	return m, in.Err()
}

func cutLast(line string) (before, after string, ok bool) {
	i := strings.LastIndexByte(line, ' ')
	if i < 0 {
		return "", "", false
	}
	return line[:i], line[i+1:], true
}

// writeSamples writes all samples as TSV.
func writeSamples(to io.Writer, samples []sample) error {
	out := bufio.NewWriter(to)
	fmt.Fprintln(out, strings.Join(columns, "\t"))
	for _, s := range samples {
		for i, c := range columns {
			if i > 0 {
				out.WriteByte('\t')
			}
			fmt.Fprintf(out, "%.0f", s[c])
		}
		out.WriteByte('\n')
	}
	return out.Flush()
}

// profile writes what the process holds at the end beside the samples, for whoever looks
// for what has grown.
func (w *world) profile() {
	w.t.Helper()
	if *samplesTo == "" {
		return
	}
	for _, what := range []string{"heap", "goroutine"} {
		resp, err := http.Get("http://" + w.ops + "/debug/pprof/" + what)
		w.must(err)
		defer resp.Body.Close()
		to, err := os.Create(*samplesTo + "." + what)
		w.must(err)
		_, err = io.Copy(to, resp.Body)
		w.must(err)
		w.must(to.Close())
	}
}
