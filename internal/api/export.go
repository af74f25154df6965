package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/access"
	"github.com/posthorn/posthorn/internal/store"
)

// Export is what may be downloaded until it expires.
type Export struct {
	ID        string  `json:"id"`
	State     string  `json:"state" enum:"ready" doc:"It is read when it is downloaded, so it is ready at once."`
	Since     *string `json:"since" format:"date-time" doc:"Events accepted since; null for all."`
	Until     string  `json:"until" format:"date-time" doc:"Events accepted before; when the export was made, at the latest."`
	Endpoints int     `json:"endpoints" doc:"How many are in it now."`
	CreatedAt string  `json:"created_at" format:"date-time"`
	ExpiresAt string  `json:"expires_at" format:"date-time" doc:"It is unknown afterwards."`
	Content   string  `json:"content" doc:"Where it is downloaded, as application/x-ndjson."`
}

// ExportCreate is the body of POST /exports.
type ExportCreate struct {
	Since field[time.Time] `json:"since,omitempty" doc:"Events accepted since; all when left out."`
	Until field[time.Time] `json:"until,omitempty" doc:"Events accepted before; now when left out or later."`
}

// exportLife is how long an export can be downloaded.
const exportLife = 24 * time.Hour

func (s *server) exportOperations() []*operation {
	return []*operation{{
		id: "create-export", method: "POST", path: "/exports", tag: "Exports", scope: access.ScopeRead,
		summary:     "Make an export of endpoints, events and deliveries",
		description: "For 24 hours all that the tenant has can be downloaded: its endpoints, and the events accepted within the bounds, with their data, deliveries and attempts. No secret is in it. It is audited.",
		body:        jsonBody[ExportCreate](`{"since": "2026-04-01T00:00:00Z"}`),
		success:     []success{{status: 201, doc: "The export.", model: reflect.TypeFor[answer[Export]](), headers: []string{"Location"}}},
		handle:      s.createExport,
	}, {
		id: "get-export", method: "GET", path: "/exports/{exportId}", tag: "Exports", scope: access.ScopeRead,
		summary:  "Get an export",
		success:  []success{{status: 200, doc: "The export.", model: reflect.TypeFor[answer[Export]]()}},
		failures: []posthorn.Code{posthorn.NotFound},
		handle:   s.getExport,
	}, {
		id: "download-export", method: "GET", path: "/exports/{exportId}/content", tag: "Exports", scope: access.ScopeRead,
		summary: "Download an export",
		description: `One JSON object a line: {"endpoint": …}, then {"event": …} and its {"delivery": …} lines, newest first, as the lists show them, with the event's data. ` +
			`The last line is {"end": {"endpoints", "events", "deliveries"}}: a download without it was cut short. Each download is audited.`,
		success:  []success{{status: 200, doc: "The lines."}},
		failures: []posthorn.Code{posthorn.NotFound},
		media:    typeNDJSON,
		stream:   s.downloadExport,
	}}
}

func (s *server) showExport(ctx context.Context, e *store.Export) (Export, error) {
	endpoints, err := s.Store.EndpointsOf(ctx, e.Tenant, "", 0)
	return Export{
		ID: e.Ref, State: "ready", Since: maybeTime(e.Since), Until: posthorn.FormatTime(e.Until), Endpoints: len(endpoints),
		CreatedAt: posthorn.FormatTime(e.CreatedAt), ExpiresAt: posthorn.FormatTime(e.ExpiresAt),
		Content: s.PublicURL + Base + "/exports/" + e.Ref + "/content",
	}, err
}

func (s *server) createExport(q *request) (*reply, error) {
	var in ExportCreate
	read, err := decode(q.body, &in)
	if err != nil {
		return nil, err
	}
	e := store.Export{
		Ref: posthorn.NewRef(posthorn.ExportPrefix, q.at), Tenant: q.tenant.ID,
		Since: in.Since.V, Until: q.at, CreatedAt: q.at, ExpiresAt: q.at.Add(exportLife),
	}
	if in.Until.Set && read.sound("/until") && in.Until.V.Before(q.at) {
		e.Until = in.Until.V
	}
	if read.sound("/since") && read.sound("/until") && !e.Since.Before(e.Until) {
		read.fault("/since", "must be before until, and not ahead of now")
	}
	if err := read.err(); err != nil {
		return nil, err
	}
	shown, err := s.showExport(q.Context(), &e)
	if err != nil {
		return nil, err
	}
	rep, err := ok(http.StatusCreated, shown)
	if err != nil {
		return nil, err
	}
	rep.location = "/exports/" + e.Ref
	if err := s.remember(q, rep); err != nil {
		return nil, err
	}
	return rep, s.Store.CreateExport(q.Context(), q.change(), e)
}

func (s *server) exportNamed(q *request) (store.Export, error) {
	ref := q.PathValue("exportId")
	if !posthorn.ValidRef(posthorn.ExportPrefix, ref) {
		return store.Export{}, missing(store.ErrNotFound, "export")
	}
	e, err := s.Store.ExportByRef(q.Context(), q.tenant.ID, ref, q.at)
	return e, missing(err, "export")
}

func (s *server) getExport(q *request) (*reply, error) {
	e, err := s.exportNamed(q)
	if err != nil {
		return nil, err
	}
	shown, err := s.showExport(q.Context(), &e)
	if err != nil {
		return nil, err
	}
	return ok(http.StatusOK, shown)
}

func (s *server) downloadExport(w http.ResponseWriter, q *request) error {
	e, err := s.exportNamed(q)
	if err != nil {
		return err
	}
	if err := s.Store.Note(q.Context(), q.change(), e.Tenant, store.Audit{Action: "export.download", Subject: e.Ref}); err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", typeNDJSON)
	h.Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", e.Ref+".jsonl"))
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	x := &exporter{s: s, ctx: q.Context(), out: bufio.NewWriterSize(w, 64<<10), control: http.NewResponseController(w)}
	if err := x.write(&e); err != nil && q.Context().Err() == nil {
		// The status is sent: that the last line is missing says it.
		s.Log.Error("an export was cut short", slog.String("export", e.Ref), slog.Any("error", err))
	}
	return nil
}

// exporter writes an export in bounded memory: a page of events without bodies,
// one body, a page of deliveries.
type exporter struct {
	s       *server
	ctx     context.Context
	out     *bufio.Writer
	control *http.ResponseController
	count   struct {
		Endpoints  int `json:"endpoints"`
		Events     int `json:"events"`
		Deliveries int `json:"deliveries"`
	}
}

const (
	exportEvents     = 250
	exportDeliveries = 50
	// exportStall is how long a download may stand still.
	exportStall = time.Minute
)

func (x *exporter) write(e *store.Export) error {
	endpoints, err := x.s.Store.EndpointsOf(x.ctx, e.Tenant, "", 0)
	if err != nil {
		return err
	}
	for i := range endpoints {
		x.count.Endpoints++
		if err := x.line("endpoint", showEndpoint(&endpoints[i])); err != nil {
			return err
		}
	}
	filter := store.EventFilter{Tenant: e.Tenant, Since: e.Since, Until: e.Until}
	page := store.Page{Limit: exportEvents}
	for {
		events, next, err := x.s.Store.Events(x.ctx, filter, page)
		if err != nil {
			return err
		}
		for i := range events {
			if err := x.event(&events[i]); err != nil {
				return err
			}
		}
		if err := x.flush(); err != nil || next == 0 {
			if err != nil {
				return err
			}
			break
		}
		page.Before = next
	}
	if err := x.line("end", x.count); err != nil {
		return err
	}
	return x.flush()
}

// event writes an event with its deliveries; one that is gone meanwhile is left
// out.
func (x *exporter) event(e *posthorn.Event) error {
	whole, err := x.s.Store.EventByRef(x.ctx, e.Tenant, e.Ref())
	if isMissing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	head, err := encode(showEvent(&whole))
	if err != nil {
		return err
	}
	data := whole.Data()
	if data == nil {
		data = []byte("null")
	}
	x.count.Events++
	// data is put in as it was published, but on one line: a line break in JSON is
	// either escaped or space.
	for _, part := range [][]byte{[]byte(`{"event":`), head[:len(head)-1], []byte(`,"data":`), oneLine(data), []byte("}}\n")} {
		if _, err := x.out.Write(part); err != nil {
			return err
		}
	}
	page := store.Page{Limit: exportDeliveries}
	for {
		deliveries, next, err := x.s.Store.Deliveries(x.ctx, store.DeliveryFilter{Tenant: e.Tenant, Event: e.ID}, page)
		if err != nil {
			return err
		}
		for i := range deliveries {
			x.count.Deliveries++
			if err := x.line("delivery", showDelivery(&deliveries[i])); err != nil {
				return err
			}
		}
		if next == 0 {
			return x.extend()
		}
		page.Before = next
	}
}

// oneLine makes line breaks spaces, in a copy if there are any.
func oneLine(data []byte) []byte {
	for i, c := range data {
		if c != '\n' && c != '\r' {
			continue
		}
		line := append([]byte(nil), data...)
		for j := i; j < len(line); j++ {
			if line[j] == '\n' || line[j] == '\r' {
				line[j] = ' '
			}
		}
		return line
	}
	return data
}

func (x *exporter) line(kind string, v any) error {
	b, err := encode(v)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(x.out, "{%q:%s}\n", kind, b)
	return err
}

func (x *exporter) flush() error {
	if err := x.extend(); err != nil {
		return err
	}
	return x.out.Flush()
}

// extend gives the download another while: the server's own limit is for answers
// of one piece.
func (x *exporter) extend() error {
	err := x.control.SetWriteDeadline(time.Now().Add(exportStall))
	if err == nil || errors.Is(err, http.ErrNotSupported) {
		return x.ctx.Err()
	}
	return err
}
