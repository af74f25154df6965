package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/posthorn/posthorn/internal/store"
)

// NewerError: the database was written by a newer version of Posthorn.
type NewerError struct{ Database, Binary int64 }

func (e *NewerError) Error() string {
	return fmt.Sprintf("the database has schema version %d, and this posthorn knows versions up to %d; run the newer posthorn that wrote it", e.Database, e.Binary)
}

// SkewError: this machine's clock is not what the other nodes' are.
type SkewError struct{ Ahead time.Duration } // of the database's

func (e *SkewError) Error() string {
	return fmt.Sprintf("this machine's clock is %+.1f s from the database's and not what the other nodes' are; set it right by NTP", e.Ahead.Seconds())
}

// DatabaseClockError: the nodes' clocks agree, and the database's is another.
type DatabaseClockError struct {
	Ahead time.Duration // of the nodes'
	Nodes int
}

func (e *DatabaseClockError) Error() string {
	return fmt.Sprintf("the database's clock is %+.1f s from the nodes'; set it right by NTP: nothing expires or is deleted by its age meanwhile", e.Ahead.Seconds())
}

// explainOpen makes a sentence of why a database could not be opened. No
// password is in it.
func (o *Options) explainOpen(err error) error {
	if errors.Is(err, errPooler) {
		return fmt.Errorf("the database %s cannot be used: %w", o.shown(), err)
	}
	if _, newer := errors.AsType[*NewerError](err); newer {
		return err
	}
	if u, ok := errors.AsType[*unfit](err); ok {
		return fmt.Errorf("the database %s cannot be used: %w", o.shown(), u)
	}
	return fmt.Errorf("the database %s cannot be opened: %w", o.shown(), classify(err))
}

// The SQLSTATEs that are told apart.
const (
	codeUnique    = "23505"
	codeDeadlock  = "40P01"
	codeSerialize = "40001"
	codeDiskFull  = "53100"
	codeReadOnly  = "25006"
	// codeDuplicateTable: somebody else made it meanwhile.
	codeDuplicateTable = "42P07"
	// codeNotAllowed: the role may not do this.
	codeNotAllowed = "42501"
	codeNoTable    = "42P01"
	codeNoColumn   = "42703"
)

func isCode(err error, codes ...string) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return false
	}
	for _, c := range codes {
		if e.Code == c {
			return true
		}
	}
	return false
}

// classify adds the error of the store's contract to one of PostgreSQL or of
// the way there.
func classify(err error) error {
	if err == nil || errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrClosed) {
		return err
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch {
		case e.Code == codeDiskFull:
			return fmt.Errorf("%w: %w", store.ErrFull, err)
		case e.Code == codeReadOnly, e.Code == codeDeadlock, e.Code == codeSerialize,
			e.Code == "55P03", e.Code == "57014", e.Code == "25P03", // lock not free in time, statement or session timed out
			e.Code[:2] == "08", e.Code[:2] == "53", e.Code[:2] == "57", e.Code[:2] == "58", e.Code[:2] == "XX":
			return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
		}
		return err
	}
	if lost(err) {
		return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	}
	return err
}

// lost reports whether the connection broke, could not be made or did not
// answer in time.
func lost(err error) bool {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code == "25P03" || e.Code[:2] == "08" || e.Code == "57P01" || e.Code == "57P02" || e.Code == "57P03" || e.Code == "57P05"
	}
	_, connect := errors.AsType[*pgconn.ConnectError](err)
	_, network := errors.AsType[net.Error](err)
	// What is safe to send again was not sent, as the connection was closed before.
	return connect || network || pgconn.SafeToRetry(err) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, context.DeadlineExceeded) || pgconn.Timeout(err)
}

// readError is the error of a read for the caller.
func (s *Store) readError(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, pgx.ErrNoRows), isCode(err, "22021"): // text that no row can hold
		return store.ErrNotFound
	case s.closed.Load():
		return store.ErrClosed
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return classify(err)
}
