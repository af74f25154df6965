package cli

import (
	"bytes"
	"fmt"
	"io"
	"iter"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/posthorn/posthorn/internal/terminal"
)

func (r *runner) checkOutput() error {
	if !slices.Contains([]string{"table", "json", "jsonl"}, r.output) {
		bad := r.output
		r.output = "table"
		return usage("-o %s is none of table, json, jsonl.", bad)
	}
	return nil
}

// writer is where a command's results go: a table is filled, JSON is written at
// once. Close it.
type writer struct {
	r      *runner
	header []string
	rows   []row
	items  []jsontext.Value
}

type row struct {
	cells []string
	tone  color
}

// list begins a list; header names the table's columns.
func (r *runner) list(header ...string) *writer { return &writer{r: r, header: header} }

// add takes one item: its JSON, and its cells of the table.
func (w *writer) add(item jsontext.Value, tone color, cells ...string) error {
	switch w.r.output {
	case "jsonl":
		return w.r.printJSON(item, false)
	case "json":
		w.items = append(w.items, item)
	default:
		for i, c := range cells {
			cells[i] = printable(c)
			if c == "" {
				cells[i] = "-"
			}
		}
		w.rows = append(w.rows, row{cells, tone})
	}
	return nil
}

// close writes what was gathered; none is said to the user when that is
// nothing.
func (w *writer) close(none string) error {
	switch {
	case w.r.output == "jsonl":
		return nil
	case w.r.output == "json":
		var b bytes.Buffer
		b.WriteByte('[')
		for i, item := range w.items {
			if i > 0 {
				b.WriteByte(',')
			}
			b.Write(item)
		}
		b.WriteByte(']')
		return w.r.printJSON(b.Bytes(), true)
	case len(w.rows) == 0:
		w.r.say("%s", none)
		return nil
	}
	return w.r.table(w.header, w.rows)
}

// table aligns columns. Colour comes after the aligning, a line at a time: it
// would count as width.
func (r *runner) table(header []string, rows []row) error {
	var b bytes.Buffer
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, strings.Join(header, "\t"))
	for _, row := range rows {
		fmt.Fprintln(t, strings.Join(row.cells, "\t"))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for i, line := range strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n") {
		tone := bold
		if i > 0 {
			tone = rows[i-1].tone
		}
		if _, err := fmt.Fprintln(r.Out, r.paint(r.Out, tone, strings.TrimRight(line, " "))); err != nil {
			return err
		}
	}
	return nil
}

// fields writes "name  value" lines; those without a value are left out.
func (r *runner) fields(pairs ...string) error {
	t := tabwriter.NewWriter(r.Out, 0, 0, 2, ' ', 0)
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			fmt.Fprintf(t, "%s\t%s\n", pairs[i], printable(pairs[i+1]))
		}
	}
	return t.Flush()
}

// wantsTable reports whether people read the result.
func (r *runner) wantsTable() bool { return r.output == "table" }

// printJSON writes one value with its strings and numbers as they are: on one
// line, or indented.
func (r *runner) printJSON(v jsontext.Value, indent bool) error {
	out := slices.Clone(v)
	opts := []jsontext.Options{jsontext.PreserveRawStrings(true), jsontext.AllowDuplicateNames(true)}
	var err error
	if indent {
		err = out.Indent(append(opts, jsontext.WithIndent("  "))...)
	} else {
		err = out.Compact(opts...)
	}
	if err != nil {
		return err
	}
	if isTerminal(r.Out) {
		out = terminal.JSON(out)
	}
	_, err = r.Out.Write(append(out, '\n'))
	return err
}

// printOne writes a single result as JSON.
func (r *runner) printOne(v jsontext.Value) error { return r.printJSON(v, r.output == "json") }

// toJSON is for results that do not come from a server.
func toJSON(v any) jsontext.Value {
	b, err := json.Marshal(v)
	must(err)
	return b
}

func (r *runner) printFault(f *fault) {
	type body struct {
		Code      string   `json:"code"`
		Message   string   `json:"message"`
		Details   []string `json:"details,omitempty"`
		Hint      *string  `json:"hint"`
		RequestID *string  `json:"request_id"`
	}
	b := body{Code: "failed", Message: f.message, Details: f.details}
	for _, c := range Codes() {
		if c.Code == f.exit {
			b.Code = c.Name
		}
	}
	if f.hint != "" {
		b.Hint = &f.hint
	}
	if f.requestID != "" {
		b.RequestID = &f.requestID
	}
	r.say("%s", terminal.JSON(toJSON(struct {
		Error body `json:"error"`
	}{b})))
}

func (r *runner) printVersion(version string) error {
	platform := runtime.GOOS + "/" + runtime.GOARCH
	if !r.wantsTable() {
		return r.printOne(toJSON(struct {
			Version  string `json:"version"`
			Go       string `json:"go"`
			Platform string `json:"platform"`
		}{version, runtime.Version(), platform}))
	}
	_, err := fmt.Fprintf(r.Out, "posthorn %s (%s %s)\n", version, runtime.Version(), platform)
	return err
}

type color string

const (
	plain  color = ""
	bold   color = "1"
	red    color = "31"
	green  color = "32"
	yellow color = "33"
)

// paint colours text for a terminal; a pipe, NO_COLOR and a dumb terminal get
// none.
func (r *runner) paint(to io.Writer, c color, text string) string {
	if c == plain || !isTerminal(to) || r.getenv("NO_COLOR") != "" || r.getenv("TERM") == "dumb" {
		return text
	}
	return "\x1b[" + string(c) + "m" + text + "\x1b[0m"
}

// isTerminal reports whether a stream is a character device that a person may
// sit at.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}

// printable keeps text that others wrote from steering the terminal.
func printable(s string) string { return terminal.Printable(s) }

// painted are the codes that paint writes, and tabs.
var painted = regexp.MustCompile("\x1b\\[(0|1|31|32|33)m|\t")

// steady is printable for whole lines, which may be painted.
func steady(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		var b strings.Builder
		at := 0
		for _, code := range painted.FindAllStringIndex(line, -1) {
			b.WriteString(printable(line[at:code[0]]))
			b.WriteString(line[code[0]:code[1]])
			at = code[1]
		}
		b.WriteString(printable(line[at:]))
		lines[i] = b.String()
	}
	return strings.Join(lines, "\n")
}

// shown writes a time; empty for the zero one.
func shown(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05Z")
}

// milliseconds is the API's form of a time; nil for the zero one.
func milliseconds(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	s := t.UTC().Format("2006-01-02T15:04:05.000Z")
	return &s
}

// take yields at most n items (0 for all) and reports through more whether any
// were left.
func take[T any](seq iter.Seq2[T, error], n int, more *bool) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		i := 0
		for item, err := range seq {
			if n > 0 && i == n && err == nil {
				*more = true
				return
			}
			i++
			if !yield(item, err) {
				return
			}
		}
	}
}
