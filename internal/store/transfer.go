package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"iter"
)

// Table is a table as it goes from one store to another.
type Table struct {
	Name    string
	Columns []Column
	// Key holds the columns that order it; they are unique.
	Key []string
}

// Column is one of a table's. Values are int64, string, []byte, bool or nil.
type Column struct {
	Name string
	Bool bool
}

// Origin is a store that is copied. Nothing changes it meanwhile.
type Origin interface {
	// Select returns those of the destination's tables that it has rows for. It
	// refuses when something that it keeps would be lost, or is asked for and not
	// there.
	Select(ctx context.Context, tables []Table) ([]Table, error)
	Count(ctx context.Context, t Table) (int64, error)
	// Rows are the table's in the order of its key, with the table's columns.
	Rows(ctx context.Context, t Table) iter.Seq2[[]any, error]
	// Sequence is the highest id that the table's rows have ever had; 0 for one
	// whose ids are not counted.
	Sequence(ctx context.Context, table string) (int64, error)
	// Moved marks it as copied to another place: it sends nothing any more.
	Moved(ctx context.Context, c Change) error
}

// Destination is an empty store that takes a copy. What was loaded is there
// after Commit, or not at all.
type Destination interface {
	// Tables are those to be copied, in the order in which they are loaded.
	Tables(ctx context.Context) ([]Table, error)
	Load(ctx context.Context, t Table, rows iter.Seq2[[]any, error]) error
	// Rows reads back what was loaded, in the order of its key.
	Rows(ctx context.Context, t Table) iter.Seq2[[]any, error]
	SetSequence(ctx context.Context, table string, last int64) error
	Commit(ctx context.Context) error
}

// Copied is what became of one table.
type Copied struct {
	Table string `json:"table"`
	Rows  int64  `json:"rows"`
	// Checksum is the same for the rows of both stores.
	Checksum string `json:"checksum"`
}

// Progress tells how a copy goes on: of which table how many rows of all are
// copied, and then read back.
type Progress func(table string, done, total int64)

// Copy copies a store whole. Each table is read back and compared by count and
// checksum before anything is committed. Afterwards the origin is marked as moved.
func Copy(ctx context.Context, from Origin, to Destination, c Change, progress Progress) ([]Copied, error) {
	if progress == nil {
		progress = func(string, int64, int64) {}
	}
	tables, err := to.Tables(ctx)
	if err != nil {
		return nil, err
	}
	if tables, err = from.Select(ctx, tables); err != nil {
		return nil, err
	}
	var all []Copied
	for _, t := range tables {
		done, err := copyTable(ctx, from, to, t, progress)
		if err != nil {
			return nil, fmt.Errorf("copy the table %s: %w", t.Name, err)
		}
		all = append(all, done)
	}
	if err := to.Commit(ctx); err != nil {
		return nil, fmt.Errorf("commit the copy: %w", err)
	}
	return all, from.Moved(ctx, c)
}

func copyTable(ctx context.Context, from Origin, to Destination, t Table, progress Progress) (done Copied, err error) {
	rows, err := from.Count(ctx, t)
	if err != nil {
		return done, err
	}
	read := newRowSum(progress, t.Name, 2*rows)
	if err := to.Load(ctx, t, read.through(from.Rows(ctx, t))); err != nil {
		return done, err
	}
	back := newRowSum(progress, t.Name, 2*rows)
	back.before = read.rows
	for _, err := range back.through(to.Rows(ctx, t)) {
		if err != nil {
			return done, err
		}
	}
	if read.rows != rows || back.rows != rows || !bytes.Equal(read.sum(), back.sum()) {
		return done, fmt.Errorf("%d rows were counted, %d read and %d found in the copy, checksums %x and %x; nothing was copied",
			rows, read.rows, back.rows, read.sum()[:8], back.sum()[:8])
	}
	last, err := from.Sequence(ctx, t.Name)
	if err == nil && last > 0 {
		err = to.SetSequence(ctx, t.Name, last)
	}
	return Copied{Table: t.Name, Rows: rows, Checksum: fmt.Sprintf("%x", read.sum()[:16])}, err
}

// rowSum counts rows and takes their checksum as they pass.
type rowSum struct {
	hash     hash.Hash
	buf      []byte
	rows     int64
	progress Progress
	table    string
	total    int64
	before   int64 // what was done before the first row
}

func newRowSum(progress Progress, table string, total int64) *rowSum {
	return &rowSum{hash: sha256.New(), progress: progress, table: table, total: total}
}

func (s *rowSum) sum() []byte { return s.hash.Sum(nil) }

func (s *rowSum) through(rows iter.Seq2[[]any, error]) iter.Seq2[[]any, error] {
	return func(yield func([]any, error) bool) {
		for row, err := range rows {
			if err == nil {
				err = s.add(row)
			}
			if !yield(row, err) || err != nil {
				return
			}
		}
		s.progress(s.table, s.before+s.rows, s.total)
	}
}

// progressRows is after how many rows progress is told.
const progressRows = 1000

func (s *rowSum) add(row []any) error {
	b := binary.AppendUvarint(s.buf[:0], uint64(len(row)))
	for _, v := range row {
		switch v := v.(type) {
		case nil:
			b = append(b, 0)
		case int64:
			b = binary.AppendVarint(append(b, 1), v)
		case string:
			b = append(binary.AppendUvarint(append(b, 2), uint64(len(v))), v...)
		case []byte:
			b = append(binary.AppendUvarint(append(b, 3), uint64(len(v))), v...)
		case bool:
			b = append(b, 4, 0)
			if v {
				b[len(b)-1] = 1
			}
		default:
			return fmt.Errorf("a value is a %T", v)
		}
	}
	s.buf = b
	s.hash.Write(b) // never fails
	if s.rows++; s.rows%progressRows == 0 {
		s.progress(s.table, s.before+s.rows, s.total)
	}
	return nil
}
