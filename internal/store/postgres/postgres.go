// Package postgres is the store for more than one machine: any number of nodes
// share a PostgreSQL (15 or newer). Every node has one writer for publishes and
// one for results; each commits together whatever is waiting. Open deliveries
// stand in a small hot table, finished ones in a history in partitions by time.
//
// What a node has in its memory is owned by the node's run, which is a lease:
// see DESIGN.md beside this file.
package postgres

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/posthorn/posthorn/internal/clock"
	"github.com/posthorn/posthorn/internal/store"
)

// Role is what a process opens the database for.
type Role int

const (
	// Serve is a node: it migrates the schema when needed, takes out a lease and
	// handles events and deliveries.
	Serve Role = iota
	// Admin changes tenants, tokens and endpoints only, beside nodes or alone.
	Admin
)

// Options says how to open a database. Zero fields have the defaults named.
type Options struct {
	// URL is postgres://user:password@host:port/database?sslmode=…, as libpq
	// takes it.
	URL  string
	Role Role
	// Clock is the clock of ids and of what waits. The store has it follow the
	// database's, and takes on nothing while the machine's is wrong. It is made with
	// clock.Options.Driven. nil: Now, of which nothing is judged.
	Clock *clock.Clock
	// Now is used without a Clock; nil is time.Now. Leases go by the monotonic clock
	// alone.
	Now func() time.Time
	Log *slog.Logger
	// Lease is how long a node that cannot be heard keeps what it owns; 0 is 10 s.
	// It is the same for all nodes. It is renewed after three tenths of it, and
	// others look after a twentieth.
	Lease time.Duration
	// Deadlines are of the calls; see there.
	Deadlines Deadlines
	// Compare is how often the rows of this node's run are compared with its memory;
	// 0 is 5 s, below 0 is never.
	Compare time.Duration
	// Bytes is the room of the database that the operator gives, for [Store.Room]; 0 for
	// unknown.
	Bytes int64
	// Host names the node in the table of runs.
	Host string

	read *readings // nil reads the files for each connection
}

func (o Options) withDefaults() Options {
	switch {
	case o.Clock != nil:
		o.Now = o.Clock.Now
	case o.Now == nil:
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Lease == 0 {
		o.Lease = 10 * time.Second
	}
	if o.Compare == 0 {
		o.Compare = 5 * time.Second
	}
	o.Deadlines = o.Deadlines.withDefaults(o.Lease)
	o.read = &readings{}
	return o
}

// Store is a [store.Store] on a PostgreSQL database.
type Store struct {
	o     Options
	now   func() time.Time
	log   *slog.Logger
	hot   *pool // the two writers
	other *pool // changes, claims and reads
	long  *pool // slices of walks; that of the others for Admin
	walks *store.Walks

	lease     *lease // nil for Admin
	clocks    *clocks
	holdings  *holdings
	publisher *publisher
	recorder  *recorder
	notices   *notices
	parts     partitions
	open      openCounts
	kept      keptCounts
	floor     scanFloor
	upkeep    upkeep
	unheld    atomic.Int64 // rows of this run that nobody held

	watchers store.Watchers
	closed   atomic.Bool
	stop     context.Context // ends when Close was called
	halt     context.CancelFunc
	running  sync.WaitGroup
	aside    side
	closing  sync.Once
	closeErr error
}

var (
	_ store.Store  = (*Store)(nil)
	_ store.Mover  = (*Store)(nil)
	_ store.Holder = (*Store)(nil)

	_ store.Keeping = (*Store)(nil)

	_ store.Partitioned = (*Store)(nil)
)

// Open opens the database. Its errors are sentences for the operator.
func Open(ctx context.Context, o Options) (*Store, error) {
	o = o.withDefaults()
	s := &Store{o: o, now: o.Now, log: o.Log, holdings: newHoldings(), walks: store.NewWalks()}
	s.clocks = newClocks(s)
	s.stop, s.halt = context.WithCancel(context.Background())
	if err := s.start(ctx); err != nil {
		s.closed.Store(true)
		s.halt()
		s.running.Wait()
		s.aside.close()
		if s.notices != nil {
			s.notices.link.close()
		}
		s.closePools()
		return nil, o.explainOpen(err)
	}
	return s, nil
}

func (s *Store) start(ctx context.Context) (err error) {
	if err := s.o.checkFit(ctx, s.o.Role == Serve); err != nil {
		return err
	}
	db, err := s.o.sqlDB()
	if err != nil {
		return err
	}
	if s.o.Role == Serve {
		_, _, err = migrate(ctx, db)
	} else {
		err = checkVersion(ctx, db)
	}
	if err = errors.Join(err, db.Close()); err != nil {
		return err
	}
	if s.other, err = s.pool(ctx, "other", 12); err != nil {
		return err
	}
	if s.notices, err = newNotices(s); err != nil {
		return err
	}
	if s.long = s.other; s.o.Role != Serve {
		s.running.Go(s.notices.run)
		return nil
	}
	if s.hot, err = s.pool(ctx, "hot", 4); err != nil {
		return err
	}
	if s.long, err = s.pool(ctx, "long", store.WalkPlaces); err != nil {
		return err
	}
	if err := s.checkDurable(ctx); err != nil {
		return err
	}
	if s.lease, err = newLease(ctx, s); err != nil {
		return err
	}
	if err := s.open.load(ctx, s); err != nil {
		return err
	}
	if err := errors.Join(s.loadKept(ctx), s.lookAtRoom(ctx)); err != nil {
		return err
	}
	if err := s.settleStream(ctx); err != nil {
		return err
	}
	if s.publisher, err = newPublisher(ctx, s); err != nil {
		return err
	}
	s.recorder = newRecorder(s)
	s.running.Go(s.notices.run)
	s.running.Go(s.lease.keep)
	s.keepWatch()
	if s.o.Compare > 0 {
		s.running.Go(func() { s.every(s.o.Compare, s.compare) })
	}
	s.publisher.running.Go(s.publisher.run)
	s.recorder.running.Go(s.recorder.run)
	return nil
}

// checkDurable warns of settings under which what was answered can be lost.
func (s *Store) checkDurable(ctx context.Context) error {
	var fsync, commit string
	if err := s.other.QueryRow(ctx, `SELECT current_setting('fsync'), current_setting('synchronous_commit')`).Scan(&fsync, &commit); err != nil {
		return err
	}
	if fsync == "off" || commit == "off" {
		s.log.Warn("the database may lose what was answered when its machine stops", "fsync", fsync, "synchronous_commit", commit)
	}
	return nil
}

// Close writes what is queued, gives back what this node owns and closes the
// connections.
func (s *Store) Close() error {
	s.closing.Do(func() {
		if s.publisher != nil {
			s.publisher.queue.close()
			s.recorder.queue.close()
			s.publisher.running.Wait()
			s.recorder.running.Wait()
			s.lastKept()
		}
		s.closed.Store(true)
		s.halt()
		s.running.Wait()
		s.aside.close()
		if s.lease != nil {
			s.closeErr = s.lease.release()
		}
		s.closePools()
	})
	return s.closeErr
}

func (s *Store) closePools() {
	for _, p := range []*pool{s.hot, s.other, s.long} {
		if p != nil {
			p.Close()
		}
	}
}

// Walks implements [store.Walker].
func (s *Store) Walks() *store.Walks { return s.walks }

// reader is the pool that a read of ctx is of.
func (s *Store) reader(ctx context.Context) *pool {
	if store.OfWalk(ctx) {
		return s.long
	}
	return s.other
}

// Ping reports whether the store can be written to now: it commits a row. It
// refuses, too, while this node's lease does not hold and while its clock is
// wrong ([SkewError]).
func (s *Store) Ping(ctx context.Context) error {
	if s.closed.Load() {
		return store.ErrClosed
	}
	_, err := s.other.Exec(ctx, `UPDATE meta SET value = value + 1 WHERE key = 'ping'`)
	switch {
	case err != nil:
		return s.readError(ctx, err)
	case s.lease == nil:
		return nil
	}
	if err := s.clocks.trouble(); err != nil {
		return err
	}
	if !s.lease.holds() {
		return errLeaseOver
	}
	return nil
}

// Watch implements [store.Store].
func (s *Store) Watch(fn func(store.Notice)) { s.watchers.Add(fn) }

// WatchSettling implements [store.Store].
func (s *Store) WatchSettling(fn func(store.Notice) (settled func())) { s.watchers.AddSettling(fn) }

// tellAll tells that anything may have changed, rows that wait among it: those that
// another node put below this one's floor, and nobody else may know of.
func (s *Store) tellAll() {
	s.floor.reset()
	s.watchers.Tell(store.Notice{Kind: store.NoticeAll})
}

// serving refuses what an admin process may not do.
func (s *Store) serving() error {
	if s.o.Role != Serve {
		return errors.New("postgres: only a serving process handles events and deliveries")
	}
	if s.closed.Load() {
		return store.ErrClosed
	}
	return nil
}
