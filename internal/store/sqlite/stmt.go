package sqlite

import (
	"database/sql"
	"fmt"
	"reflect"
	"unsafe"

	sqlite3 "modernc.org/sqlite/lib"
)

// stmt is a prepared statement; while it is read, its row.
type stmt struct {
	conn    *conn
	handle  uintptr
	params  int
	columns int
	busy    bool
	kept    bool // by the connection, to be run again

	// What texts and blobs are bound to, outside of Go's heap, until the next time.
	buffer, size uintptr
}

// keptBuffer is what a statement keeps for its next run.
const keptBuffer = 16 << 10

// bind takes int64, int, bool, float64, string, []byte and nil; a nil []byte is NULL.
func (s *stmt) bind(args []any) error {
	if len(args) != s.params {
		return fmt.Errorf("sqlite: %d arguments for %d parameters", len(args), s.params)
	}
	var need uintptr
	for _, a := range args {
		switch v := a.(type) {
		case string:
			need += uintptr(len(v))
		case []byte:
			need += uintptr(len(v))
		}
	}
	// Not even an empty value may have the address 0: that is NULL.
	if err := s.grow(max(need, 1)); err != nil {
		return err
	}
	free := s.buffer
	for i, a := range args {
		n, rc := int32(i+1), int32(0)
		switch v := a.(type) {
		case int64:
			rc = sqlite3.Xsqlite3_bind_int64(s.conn.tls, s.handle, n, v)
		case int:
			rc = sqlite3.Xsqlite3_bind_int64(s.conn.tls, s.handle, n, int64(v))
		case bool:
			var b int64
			if v {
				b = 1
			}
			rc = sqlite3.Xsqlite3_bind_int64(s.conn.tls, s.handle, n, b)
		case float64:
			rc = sqlite3.Xsqlite3_bind_double(s.conn.tls, s.handle, n, v)
		case string:
			copy(memory(free, len(v)), v)
			rc = sqlite3.Xsqlite3_bind_text(s.conn.tls, s.handle, n, free, int32(len(v)), sqlite3.SQLITE_STATIC)
			free += uintptr(len(v))
		case []byte:
			if v == nil {
				rc = sqlite3.Xsqlite3_bind_null(s.conn.tls, s.handle, n)
				break
			}
			copy(memory(free, len(v)), v)
			rc = sqlite3.Xsqlite3_bind_blob(s.conn.tls, s.handle, n, free, int32(len(v)), sqlite3.SQLITE_STATIC)
			free += uintptr(len(v))
		case nil:
			rc = sqlite3.Xsqlite3_bind_null(s.conn.tls, s.handle, n)
		default:
			return fmt.Errorf("sqlite: argument %d is a %T", n, a)
		}
		if rc != sqlite3.SQLITE_OK {
			return s.conn.fault(rc)
		}
	}
	return nil
}

// memory is what lies at an address outside of Go's heap.
func memory(address uintptr, n int) []byte { return unsafe.Slice((*byte)(at(address)), n) }

func (s *stmt) grow(need uintptr) error {
	if need <= s.size {
		return nil
	}
	size := max(need, 2*s.size, 64)
	if need > 1<<30 {
		return fmt.Errorf("sqlite: %d bytes are too much for a statement", need)
	}
	s.forgetBuffer()
	if s.buffer = sqlite3.Xsqlite3_malloc(s.conn.tls, int32(size)); s.buffer == 0 {
		return errNoMemory
	}
	s.size = size
	return nil
}

// forgetBuffer frees what the parameters are bound to.
func (s *stmt) forgetBuffer() {
	if s.buffer == 0 {
		return
	}
	sqlite3.Xsqlite3_clear_bindings(s.conn.tls, s.handle)
	sqlite3.Xsqlite3_free(s.conn.tls, s.buffer)
	s.buffer, s.size = 0, 0
}

// release ends the run. What a step failed with is not told again.
func (s *stmt) release() {
	sqlite3.Xsqlite3_reset(s.conn.tls, s.handle)
	s.busy = false
	switch {
	case !s.kept:
		s.finalize()
	case s.size > keptBuffer:
		s.forgetBuffer()
	}
}

func (s *stmt) finalize() {
	s.forgetBuffer()
	sqlite3.Xsqlite3_finalize(s.conn.tls, s.handle)
	s.handle = 0
}

// Scan copies the row's columns into dest: pointers to numbers, booleans, strings,
// []byte and types of these, or a [sql.Scanner]. Another type than the column's, or
// NULL where dest cannot say so, is [ErrCorrupt]: Posthorn does not write it.
func (s *stmt) Scan(dest ...any) error {
	if len(dest) != s.columns {
		return fmt.Errorf("sqlite: %d columns are read into %d", s.columns, len(dest))
	}
	for i, d := range dest {
		if err := s.column(int32(i), d); err != nil {
			return err
		}
	}
	return nil
}

func (s *stmt) column(i int32, dest any) error {
	kind := sqlite3.Xsqlite3_column_type(s.conn.tls, s.handle, i)
	switch d := dest.(type) { // what is common, without reflection
	case *int64:
		if kind == sqlite3.SQLITE_INTEGER {
			*d = s.integer(i)
			return nil
		}
	case *string:
		if kind == sqlite3.SQLITE_TEXT {
			*d = string(s.bytes(i))
			return nil
		}
	case *[]byte:
		switch kind {
		case sqlite3.SQLITE_BLOB, sqlite3.SQLITE_TEXT:
			*d = append([]byte{}, s.bytes(i)...)
			return nil
		case sqlite3.SQLITE_NULL:
			*d = nil
			return nil
		}
	case sql.Scanner:
		return d.Scan(s.value(i, kind))
	}
	v := reflect.ValueOf(dest).Elem()
	switch k := v.Kind(); {
	case v.CanInt() && kind == sqlite3.SQLITE_INTEGER && !v.OverflowInt(s.integer(i)):
		v.SetInt(s.integer(i))
	case v.CanUint() && kind == sqlite3.SQLITE_INTEGER && s.integer(i) >= 0 && !v.OverflowUint(uint64(s.integer(i))):
		v.SetUint(uint64(s.integer(i)))
	case k == reflect.Bool && kind == sqlite3.SQLITE_INTEGER && uint64(s.integer(i)) <= 1:
		v.SetBool(s.integer(i) == 1)
	case v.CanFloat() && kind == sqlite3.SQLITE_FLOAT:
		v.SetFloat(sqlite3.Xsqlite3_column_double(s.conn.tls, s.handle, i))
	case k == reflect.String && kind == sqlite3.SQLITE_TEXT:
		v.SetString(string(s.bytes(i)))
	case k == reflect.Slice && v.Type().Elem().Kind() == reflect.Uint8 && kind == sqlite3.SQLITE_NULL:
		v.SetZero()
	case k == reflect.Slice && v.Type().Elem().Kind() == reflect.Uint8 && (kind == sqlite3.SQLITE_BLOB || kind == sqlite3.SQLITE_TEXT):
		v.SetBytes(append([]byte{}, s.bytes(i)...))
	default:
		return fmt.Errorf("%w: column %d holds %v, which is no %s", ErrCorrupt, i+1, s.value(i, kind), v.Type())
	}
	return nil
}

func (s *stmt) integer(i int32) int64 {
	return sqlite3.Xsqlite3_column_int64(s.conn.tls, s.handle, i)
}

// bytes is valid until the next step.
func (s *stmt) bytes(i int32) []byte {
	p := sqlite3.Xsqlite3_column_blob(s.conn.tls, s.handle, i)
	if p == 0 {
		return nil
	}
	return memory(p, int(sqlite3.Xsqlite3_column_bytes(s.conn.tls, s.handle, i)))
}

func (s *stmt) value(i, kind int32) any {
	switch kind {
	case sqlite3.SQLITE_INTEGER:
		return s.integer(i)
	case sqlite3.SQLITE_FLOAT:
		return sqlite3.Xsqlite3_column_double(s.conn.tls, s.handle, i)
	case sqlite3.SQLITE_TEXT:
		return string(s.bytes(i))
	case sqlite3.SQLITE_BLOB:
		return append([]byte{}, s.bytes(i)...)
	}
	return nil
}
