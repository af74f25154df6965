package api

import (
	"bytes"
	"fmt"
	"net/http"
	"strconv"

	"github.com/go-json-experiment/json"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/web"
)

// What answers hold of memory until their readers have taken them. A small answer
// is not counted; of a larger one everything counts that it was made of.
const (
	smallAnswer     = 64 << 10
	answersInAll    = 128 << 20
	answersOfTenant = 16 << 20
)

// A page of a list ends early where its answer has as many bytes, or its rows hold
// as many in memory.
const (
	pageBytes  = 4 << 20
	pageWeight = 2 << 20
)

// listSnippet is how many bytes of an answer's body a list shows of each attempt.
const listSnippet = 256

// deliveriesPage is a page of deliveries as lists show them.
func deliveriesPage(limit int, before int64) store.Page {
	return store.Page{Limit: limit, Before: posthorn.ID(before), Snippet: listSnippet, Weight: pageWeight}
}

// pieces is an answer that is made and written bit by bit, so that of a large one
// no more than a buffer is in memory beside its rows. What is small stays in the
// buffer until its end, so that it is sent whole, or a problem in its place.
type pieces struct {
	out   http.ResponseWriter
	buf   bytes.Buffer
	total int // bytes, written or in buf
	// weight is how many bytes of memory the answer is made of, once it is large.
	weight func() int64
	// begin says that the answer is a large one, and sends its head.
	begin func(weight int64) error
	begun bool
}

// text adds JSON.
func (p *pieces) text(s ...string) error {
	for _, s := range s {
		p.buf.WriteString(s)
		p.total += len(s)
	}
	return p.spill()
}

// value adds what is encoded to JSON.
func (p *pieces) value(v any) error {
	before := p.buf.Len()
	if err := json.MarshalWrite(&p.buf, v, json.Deterministic(true)); err != nil {
		return fmt.Errorf("api: encode %T: %w", v, err)
	}
	p.total += p.buf.Len() - before
	return p.spill()
}

// full reports whether a page is to end here.
func (p *pieces) full() bool { return p.total >= pageBytes }

// spill writes the buffer when it is large.
func (p *pieces) spill() error {
	if p.buf.Len() < smallAnswer {
		return nil
	}
	if !p.begun {
		weight := int64(p.buf.Len())
		if p.weight != nil {
			weight = max(weight, p.weight())
		}
		if err := p.begin(weight); err != nil {
			return err
		}
		p.begun = true
	}
	_, err := p.buf.WriteTo(p.out)
	return err
}

// writePieces answers with what comes bit by bit. The error is for an answer that
// has not begun; one that has is cut off, so that nobody takes a part for the whole.
func (s *server) writePieces(w http.ResponseWriter, q *request, rep *reply) error {
	p := &pieces{out: w}
	var held int64
	defer func() { s.answers.Give(q.party, held) }()
	p.begin = func(weight int64) error {
		if err := s.answers.Take(q.party, weight); err != nil {
			return busy(err, "large answers")
		}
		held = weight
		s.head(w, rep)
		w.Header().Set("Content-Type", typeJSON)
		w.WriteHeader(rep.status)
		return nil
	}
	err := rep.pieces(p)
	switch {
	case err != nil && p.begun:
		panic(http.ErrAbortHandler)
	case err != nil:
		return err
	case !p.begun:
		s.head(w, rep)
		web.WriteJSON(w, rep.status, p.buf.Bytes())
	default:
		_, _ = p.buf.WriteTo(w) // the client may be gone; nobody is left to tell
	}
	return nil
}

// holdAnswer counts an answer that is there whole, for as long as it is written.
// What has changed something is not refused for the size of its answer.
func (s *server) holdAnswer(q *request, size int) (release func(), err error) {
	if size <= smallAnswer || q.Method != http.MethodGet {
		return func() {}, nil
	}
	if err := s.answers.Take(q.party, int64(size)); err != nil {
		return nil, busy(err, "large answers")
	}
	return func() { s.answers.Give(q.party, int64(size)) }, nil
}

// pageReply answers with rows, each of which is shown when it is written and let
// go then. next is the place of the next page, 0 for none; a page that becomes too
// large ends earlier, where place says, nil for lists of what is small.
func pageReply[R, T any](s *server, q *request, rows []R, show func(*R) T, place func(*R) int64, next int64) (*reply, error) {
	return &reply{status: http.StatusOK, pieces: func(p *pieces) error {
		stop := func(r *R) bool {
			if place == nil || !p.full() {
				return false
			}
			next = place(r)
			return true
		}
		if err := writeRows(p, rows, show, stop); err != nil {
			return err
		}
		if next == 0 {
			return p.text(`,"next_cursor":null}`)
		}
		return p.text(`,"next_cursor":"`, s.makeCursor(q, strconv.FormatInt(next, 10)), `"}`)
	}}, nil
}

// writeRows writes {"data":[…] of the rows, up to one after which stop says so.
// Where there are rows, stop is never asked after the last.
func writeRows[R, T any](p *pieces, rows []R, show func(*R) T, stop func(*R) bool) error {
	if err := p.text(`{"data":[`); err != nil {
		return err
	}
	if err := writeSome(p, rows, show, stop); err != nil {
		return err
	}
	return p.text(`]`)
}

// writeSome writes rows of a list, as writeRows does.
func writeSome[R, T any](p *pieces, rows []R, show func(*R) T, stop func(*R) bool) error {
	done, before := 0, p.total
	p.weight = func() int64 { return int64(p.total-before) / int64(done) * int64(len(rows)) }
	for i := range rows {
		if i > 0 {
			p.buf.WriteByte(',')
			p.total++
		}
		done++
		if err := p.value(show(&rows[i])); err != nil {
			return err
		}
		if i+1 < len(rows) && stop != nil && stop(&rows[i]) {
			break
		}
		var none R
		rows[i] = none
	}
	return nil
}
