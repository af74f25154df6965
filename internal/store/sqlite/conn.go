package sqlite

import (
	"errors"
	"fmt"
	"strings"
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// conn is the writer's connection, by the C interface of SQLite as
// modernc.org/sqlite/lib has it. The driver's way of the same library locks a mutex
// for each value that is bound, asks for each value's name and copies it to memory
// of its own: 6 % of what a delivery costs the server.
//
// It is for one goroutine at a time ("multi-thread" of
// https://sqlite.org/threadsafe.html), and its methods wait as long as SQLite does.
type conn struct {
	tls   *libc.TLS
	db    uintptr
	stmts map[string]*stmt
}

// connError is what SQLite says of a call that failed.
type connError struct {
	code int // extended result code
	text string
}

func (e *connError) Error() string { return fmt.Sprintf("%s (%d)", e.text, e.code) }

// Code is the extended result code (https://sqlite.org/rescode.html).
func (e *connError) Code() int { return e.code }

// openConn opens the file, which must exist, and executes the pragmas.
func openConn(path string, pragmas ...string) (*conn, error) {
	c := &conn{tls: libc.NewTLS(), stmts: make(map[string]*stmt)}
	if err := c.open(path); err != nil {
		return nil, errors.Join(err, c.close())
	}
	for _, p := range pragmas {
		if err := c.exec("PRAGMA "+p, nil); err != nil {
			return nil, errors.Join(fmt.Errorf("pragma %s: %w", p, err), c.close())
		}
	}
	return c, nil
}

func (c *conn) open(path string) error {
	name, err := libc.CString(path)
	if err != nil {
		return err
	}
	defer libc.Xfree(c.tls, name)
	out := sqlite3.Xsqlite3_malloc(c.tls, int32(unsafe.Sizeof(c.db)))
	if out == 0 {
		return errNoMemory
	}
	defer sqlite3.Xsqlite3_free(c.tls, out)
	// A path that begins with "file:" is not a URI here.
	rc := sqlite3.Xsqlite3_open_v2(c.tls, name, out, sqlite3.SQLITE_OPEN_READWRITE|sqlite3.SQLITE_OPEN_NOMUTEX, 0)
	c.db = *(*uintptr)(at(out))
	if rc == sqlite3.SQLITE_OK {
		rc = sqlite3.Xsqlite3_extended_result_codes(c.tls, c.db, 1)
	}
	if rc != sqlite3.SQLITE_OK {
		return c.fault(rc)
	}
	return nil
}

var errNoMemory = errors.New("sqlite: out of memory")

// at makes a pointer of an address outside of Go's heap.
func at(address uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&address)) }

func (c *conn) fault(rc int32) error {
	text := libc.GoString(sqlite3.Xsqlite3_errstr(c.tls, rc))
	if c.db != 0 {
		if detail := libc.GoString(sqlite3.Xsqlite3_errmsg(c.tls, c.db)); detail != text {
			text += ": " + detail
		}
	}
	return &connError{int(rc), text}
}

// close ends all statements and the connection. A second close does nothing.
func (c *conn) close() error {
	if c.tls == nil {
		return nil
	}
	for _, s := range c.stmts {
		s.finalize()
	}
	rc := sqlite3.Xsqlite3_close_v2(c.tls, c.db)
	var err error
	if rc != sqlite3.SQLITE_OK {
		err = c.fault(rc)
	}
	c.tls.Close()
	c.tls, c.db, c.stmts = nil, 0, nil
	return err
}

// exec runs a statement, whatever rows it returns.
func (c *conn) exec(query string, args []any) error {
	return c.rows(query, args, func(scanner) error { return nil })
}

// changes is how many rows the last INSERT, UPDATE or DELETE changed.
func (c *conn) changes() int { return int(sqlite3.Xsqlite3_changes(c.tls, c.db)) }

// lastID is the row id of the last INSERT.
func (c *conn) lastID() int64 { return sqlite3.Xsqlite3_last_insert_rowid(c.tls, c.db) }

// row scans the first row into dest; found is false without one.
func (c *conn) row(query string, args []any, dest ...any) (found bool, err error) {
	err = c.rows(query, args, func(r scanner) error {
		if found {
			return nil
		}
		found = true
		return r.Scan(dest...)
	})
	return found && err == nil, err
}

// rows calls scan for each row; its error ends the statement. scan may use the
// connection.
func (c *conn) rows(query string, args []any, scan func(scanner) error) error {
	s, err := c.stmt(query)
	if err != nil {
		return err
	}
	defer s.release()
	if err := s.bind(args); err != nil {
		return err
	}
	for {
		switch rc := sqlite3.Xsqlite3_step(c.tls, s.handle); rc {
		case sqlite3.SQLITE_ROW:
			if err := scan(s); err != nil {
				return err
			}
		case sqlite3.SQLITE_DONE:
			return nil
		default:
			return c.fault(rc)
		}
	}
}

// stmt prepares each query once, and again while it is being read.
func (c *conn) stmt(query string) (*stmt, error) {
	kept, ok := c.stmts[query]
	if ok && !kept.busy {
		kept.busy = true
		return kept, nil
	}
	s, err := c.prepare(query)
	if err != nil {
		return nil, err
	}
	if s.busy = true; !ok {
		s.kept = true
		c.stmts[query] = s
	}
	return s, nil
}

func (c *conn) prepare(query string) (*stmt, error) {
	text, err := libc.CString(query)
	if err != nil {
		return nil, err
	}
	defer libc.Xfree(c.tls, text)
	const word = unsafe.Sizeof(uintptr(0))
	out := sqlite3.Xsqlite3_malloc(c.tls, int32(2*word))
	if out == 0 {
		return nil, errNoMemory
	}
	defer sqlite3.Xsqlite3_free(c.tls, out)
	rc := sqlite3.Xsqlite3_prepare_v3(c.tls, c.db, text, -1, sqlite3.SQLITE_PREPARE_PERSISTENT, out, out+word)
	if rc != sqlite3.SQLITE_OK {
		return nil, c.fault(rc)
	}
	s := &stmt{conn: c, handle: *(*uintptr)(at(out))}
	if rest := libc.GoString(*(*uintptr)(at(out + word))); s.handle == 0 || strings.TrimSpace(rest) != "" {
		s.finalize()
		return nil, fmt.Errorf("sqlite: %q is not one statement", query)
	}
	s.params = int(sqlite3.Xsqlite3_bind_parameter_count(c.tls, s.handle))
	s.columns = int(sqlite3.Xsqlite3_column_count(c.tls, s.handle))
	return s, nil
}
