package client

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"
)

// Export is what may be downloaded until it expires.
type Export struct {
	resource `json:"-"`
	ID       string `json:"id"`
	State    string `json:"state"`
	// Since is zero for all events.
	Since     time.Time `json:"since"`
	Until     time.Time `json:"until"`
	Endpoints int       `json:"endpoints"`
	CreatedAt time.Time `json:"created_at"`
	ExpiresAt time.Time `json:"expires_at"`
	Content   string    `json:"content"`
}

// ExportBounds are times of acceptance: Since <= t < Until. Zero ones select all.
type ExportBounds struct {
	Since time.Time `json:"since,omitzero"`
	Until time.Time `json:"until,omitzero"`
}

// CreateExport makes an export of endpoints, events and deliveries.
func (c *Client) CreateExport(ctx context.Context, b ExportBounds) (*Export, error) {
	return call[Export](ctx, c, request{method: http.MethodPost, path: "/exports", body: b})
}

// Export returns an export that was made; status 404 when it has expired.
func (c *Client) Export(ctx context.Context, id string) (*Export, error) {
	return get[Export](ctx, c, "/exports"+segment(id))
}

// Exported counts what was downloaded.
type Exported struct {
	Endpoints  int `json:"endpoints"`
	Events     int `json:"events"`
	Deliveries int `json:"deliveries"`
}

// ErrCutShort is returned for a download whose last line did not come.
var ErrCutShort = errors.New("client: the export was cut short; download it again")

// DownloadExport writes the lines of an export to w, as they come; the last one,
// which counts them, too. It returns ErrCutShort if that is missing. The time of
// a request that [Config.HTTP] may set does not bound it; ctx does.
func (c *Client) DownloadExport(ctx context.Context, id string, w io.Writer) (Exported, error) {
	path := "/exports" + segment(id) + "/content"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+path, nil)
	if err != nil {
		return Exported{}, fmt.Errorf("client: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	req.Header.Set("Accept", "application/x-ndjson, application/problem+json")
	req.Header.Set("User-Agent", c.userAgent)
	if c.tenant != "" {
		req.Header.Set("Posthorn-Tenant", c.tenant)
	}
	patient := *c.http
	patient.Timeout = 0
	resp, err := patient.Do(req)
	if err != nil {
		return Exported{}, c.unreachable(ctx, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		a, r := answer{status: resp.StatusCode, header: resp.Header}, request{method: http.MethodGet, path: path}
		if a.body, err = readAll(resp.Body, r); err != nil {
			return Exported{}, c.unreachable(ctx, err)
		}
		return Exported{}, problem(a, r)
	}
	return c.copyLines(ctx, w, resp.Body)
}

func (c *Client) copyLines(ctx context.Context, w io.Writer, r io.Reader) (Exported, error) {
	in := bufio.NewReaderSize(r, 64<<10)
	var last []byte
	for {
		line, err := readLine(in, maxExportLine, "a line of the export")
		if err == io.EOF && len(line) == 0 {
			break
		}
		if errors.Is(err, io.ErrUnexpectedEOF) && ctx.Err() == nil { // the server has cut it
			return Exported{}, ErrCutShort
		}
		if err != nil && err != io.EOF {
			return Exported{}, c.unreachable(ctx, err)
		}
		if _, err := w.Write(line); err != nil {
			return Exported{}, err
		}
		last = line
	}
	var end struct {
		End *Exported `json:"end"`
	}
	if !bytes.HasPrefix(last, []byte(`{"end":`)) || json.Unmarshal(last, &end) != nil || end.End == nil {
		return Exported{}, ErrCutShort
	}
	return *end.End, nil
}
