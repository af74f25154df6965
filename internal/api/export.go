package api

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/access"
	"github.com/posthorn/posthorn/internal/share"
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

const (
	// exportLife is how long an export can be downloaded.
	exportLife = 24 * time.Hour
	// How many are downloaded at a time.
	exportsOfTenant = 2
	exportsInAll    = 20
	exportRetry     = 30 * time.Second
)

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
			`The last line is {"end": {"endpoints", "events", "deliveries"}}: a download without it was cut short. Each download is audited. ` +
			"It ends without that line when the token is revoked or expires or the tenant is deleted, with {\"cut\": {\"reason\"}} where the reader still reads, and when the node stops. " +
			"A tenant may have 2 downloads at a time on a node.",
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
	who := share.Tenant(e.Tenant)
	if err := s.exports.take(who); err != nil {
		return err
	}
	defer s.exports.Give(who, 1)
	if err := s.Store.Note(q.Context(), q.change(), e.Tenant, store.Audit{Action: "export.download", Subject: e.Ref}); err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", typeNDJSON)
	h.Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", e.Ref+".jsonl"))
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	right, release := s.rightOf(q, w)
	defer release()
	x := &exporter{s: s, q: q, right: right, out: bufio.NewWriterSize(w, 64<<10)}
	err = x.write(&e)
	if err == nil {
		return nil
	}
	x.cut()
	if q.Context().Err() == nil {
		s.Log.Warn("an export was cut short", slog.String("export", e.Ref), slog.Any("error", err))
	}
	// The status is sent: a connection that breaks off, and the missing last line, say
	// that this is not all.
	panic(http.ErrAbortHandler)
}
