package sqlite_test

import (
	"cmp"
	"context"
	"database/sql"
	"embed"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/pressly/goose/v3"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/proof"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/sqlite"
	"github.com/posthorn/posthorn/internal/store/storetest"
)

// listWorld is a store of some tenants and endpoints of which any list is held against
// what the tables of events and deliveries say.
type listWorld struct {
	*testing.T
	*rand.Rand
	*sqlite.Store
	clock   clock
	now     time.Time
	path    string
	gather  int // 0: any
	tenants []*listTenant
	n       int
}

type listTenant struct {
	posthorn.Tenant
	endpoints []posthorn.Endpoint
}

// newListWorld opens a new store that gathers so many entries; 0 for any.
func newListWorld(t *testing.T, gather int) *listWorld {
	seed := rand.Uint64()
	if s, err := strconv.ParseUint(os.Getenv("POSTHORN_TEST_SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Logf("POSTHORN_TEST_SEED=%d", seed)
	w := &listWorld{T: t, gather: gather, Rand: rand.New(rand.NewPCG(seed, 0)), now: time.Now().UTC(), path: filepath.Join(t.TempDir(), "a.db")}
	w.pass(0)
	w.open()
	return w
}

func (w *listWorld) pass(d time.Duration) {
	w.now = w.now.Add(d)
	w.clock.nanos.Store(w.now.UnixNano())
}

func (w *listWorld) open() {
	w.Store = open(w.T, sqlite.Options{Path: w.path, Now: w.clock.shown, Gather: cmp.Or(w.gather, 1+w.IntN(60)), Poll: -1})
}

func (w *listWorld) by() store.Change { return store.Change{Actor: "test", At: w.now} }

func (w *listWorld) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *listWorld) name() string { w.n++; return strconv.Itoa(w.n) }

func (w *listWorld) addTenant() {
	tenant, err := w.CreateTenant(w.Context(), w.by(), w.name())
	w.must(err)
	w.tenants = append(w.tenants, &listTenant{Tenant: tenant})
}

func (w *listWorld) addEndpoint(t *listTenant) {
	name := w.name()
	e, err := w.CreateEndpoint(w.Context(), w.by(), posthorn.Endpoint{Ref: "wh_" + name, Tenant: t.ID, URL: "https://example.com/" + name, Events: []posthorn.Pattern{"*"}}, nil, 0)
	w.must(err)
	t.endpoints = append(t.endpoints, e)
}

func (w *listWorld) publish(t *listTenant) {
	set, err := w.EndpointSet(w.Context(), t.ID)
	w.must(err)
	p := store.Publication{Tenant: t.ID, SetVersion: set.Version, At: w.now, BacklogLimit: 10}
	for range 1 + w.IntN(4) {
		e := store.NewEvent{Type: "cases.updated", OccurredAt: w.now, Body: posthorn.AppendBody(nil, "", "cases.updated", w.now, []byte(`{}`))}
		for _, at := range t.endpoints {
			if w.IntN(3) > 0 {
				e.Targets = append(e.Targets, store.PublishTarget{Endpoint: at.ID})
			}
		}
		p.Events = append(p.Events, e)
	}
	_, err = w.Publish(w.Context(), p)
	w.must(err)
}

// publishOne publishes an event to one endpoint.
func (w *listWorld) publishOne(t *listTenant, version int64, to posthorn.Endpoint) (posthorn.ID, error) {
	a, err := w.Publish(w.Context(), store.Publication{Tenant: t.ID, SetVersion: version, At: w.now, BacklogLimit: 10_000, Events: []store.NewEvent{{
		Type: "cases.updated", OccurredAt: w.now, Body: posthorn.AppendBody(nil, "", "cases.updated", w.now, []byte(`{}`)),
		Targets: []store.PublishTarget{{Endpoint: to.ID}},
	}}})
	if err != nil {
		return 0, err
	}
	return a[0].ID, nil
}

func (w *listWorld) sweep() {
	storetest.Sweep(w, w, w.now, store.Retention{Events: 20 * time.Hour, Deliveries: 10 * time.Hour})
}

func (w *listWorld) step() {
	tenant := pick(w.Rand, w.tenants)
	switch n := w.IntN(100); {
	case n < 3 || tenant == nil:
		w.addTenant()
	case n < 10:
		w.addEndpoint(tenant)
	case n < 60:
		w.publish(tenant)
	case n < 70:
		w.pass(time.Duration(w.IntN(int(2 * time.Hour))))
	case n < 80:
		w.sweep()
	case n < 82 && len(tenant.endpoints) > 0:
		i := w.IntN(len(tenant.endpoints))
		w.must(w.DeleteEndpoint(w.Context(), w.by(), tenant.ID, tenant.endpoints[i].Ref, 0))
		tenant.endpoints = slices.Delete(tenant.endpoints, i, i+1)
	case n < 83:
		w.must(w.DeleteTenant(w.Context(), w.by(), tenant.ID))
		w.tenants = slices.DeleteFunc(w.tenants, func(t *listTenant) bool { return t == tenant })
	case n < 86: // the process is killed
		w.path = asKilled(w.T, w.path)
		w.open()
	case n < 88:
		w.must(w.Close())
		w.open()
	default:
		w.check(tenant)
	}
}

func pick[T any](r *rand.Rand, list []T) (v T) {
	if len(list) == 0 {
		return v
	}
	return list[r.IntN(len(list))]
}

// check reads the tenant's lists, from the serving process and from another.
func (w *listWorld) check(t *listTenant) {
	w.Helper()
	db, err := sql.Open("sqlite", w.path)
	w.must(err)
	defer db.Close()
	stores := []*sqlite.Store{w.Store}
	if w.IntN(4) == 0 {
		stores = append(stores, open(w.T, sqlite.Options{Path: w.path, Role: sqlite.Admin, Poll: -1}))
	}
	events := read(w, db, `SELECT id FROM events WHERE tenant = ? ORDER BY id DESC`, t.ID)
	all := read(w, db, `SELECT id FROM deliveries WHERE tenant = ? ORDER BY id DESC`, t.ID)
	for _, s := range stores {
		w.same("events", events, pages(w, func(p store.Page) ([]posthorn.Event, posthorn.ID, error) {
			return s.Events(w.Context(), store.EventFilter{Tenant: t.ID}, p)
		}, func(e posthorn.Event) posthorn.ID { return e.ID }))
		w.same("the tenant's deliveries", all, w.deliveries(s, store.DeliveryFilter{Tenant: t.ID}))
		for _, e := range t.endpoints {
			want := read(w, db, `SELECT id FROM deliveries WHERE endpoint = ? ORDER BY id DESC`, e.ID)
			w.same("deliveries", want, w.deliveries(s, store.DeliveryFilter{Tenant: t.ID, Endpoint: e.ID}))
			w.stream(s, db, t, e, events)
			w.plan(s, db, t, e)
		}
	}
}

func (w *listWorld) deliveries(s *sqlite.Store, f store.DeliveryFilter) []posthorn.ID {
	return pages(w, func(p store.Page) ([]posthorn.Delivery, posthorn.ID, error) {
		return s.Deliveries(w.Context(), f, p)
	}, func(d posthorn.Delivery) posthorn.ID { return d.ID })
}

// stream reads the tenant's events forward, and which of them an endpoint has.
func (w *listWorld) stream(s *sqlite.Store, db *sql.DB, t *listTenant, e posthorn.Endpoint, newest []posthorn.ID) {
	want := slices.Clone(newest)
	slices.Reverse(want)
	w.same("stream", want, w.streamed(s, store.StreamFilter{Tenant: t.ID}))
	matched := read(w, db, `SELECT DISTINCT event FROM deliveries WHERE endpoint = ? ORDER BY event`, e.ID)
	w.same("stream of an endpoint", matched, w.streamed(s, store.StreamFilter{Tenant: t.ID, Endpoint: e.ID}))
}

func (w *listWorld) streamed(s *sqlite.Store, f store.StreamFilter) (ids []posthorn.ID) {
	var at store.StreamPlace
	for more := true; more; {
		page, err := s.Stream(w.Context(), f, at)
		w.must(err)
		for _, e := range page.Events {
			ids = append(ids, e.ID)
		}
		at, more = page.Next, page.More
	}
	return ids
}

// plan counts what a replay would send: what is finished, and what is missing.
func (w *listWorld) plan(s *sqlite.Store, db *sql.DB, t *listTenant, e posthorn.Endpoint) {
	want := read(w, db, `SELECT id FROM deliveries WHERE endpoint = ? AND place = 0`, e.ID)
	sel := posthorn.ReplaySelection{States: []posthorn.ShownState{"expired", "succeeded", "failed", "canceled"}}
	plan, err := s.PlanReplay(w.Context(), t.ID, e.ID, sel)
	w.must(err)
	if plan.Total != len(want) {
		w.Errorf("a replay is of %d, want %d", plan.Total, len(want))
	}
}

func (w *listWorld) same(what string, want, got []posthorn.ID) {
	w.Helper()
	if !slices.Equal(want, got) {
		w.Fatalf("%s: %d of %d:\ngot  %x\nwant %x", what, len(got), len(want), got, want)
	}
}

func read(w *listWorld, db *sql.DB, query string, args ...any) (ids []posthorn.ID) {
	w.Helper()
	rows, err := db.Query(query, args...)
	w.must(err)
	defer rows.Close()
	for rows.Next() {
		var id int64
		w.must(rows.Scan(&id))
		ids = append(ids, posthorn.ID(id))
	}
	w.must(rows.Err())
	return ids
}

// pages reads a list to its end by pages of a random size.
func pages[T any](w *listWorld, list func(store.Page) ([]T, posthorn.ID, error), id func(T) posthorn.ID) (ids []posthorn.ID) {
	for p := (store.Page{Limit: 1 + w.IntN(50)}); ; {
		items, next, err := list(p)
		w.must(err)
		for _, item := range items {
			ids = append(ids, id(item))
		}
		if p.Before = next; next == 0 {
			return ids
		}
	}
}

// Whatever happens, also to the process, a list has what the tables have, in order.
func TestListsHaveWhatTheTablesHave(t *testing.T) {
	worlds := 4
	if proof.RaceDetector {
		worlds = 1
	}
	for range worlds {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			w := newListWorld(t, 0)
			for range 300 {
				w.step()
			}
			for _, tenant := range w.tenants {
				w.check(tenant)
			}
			w.end()
		})
	}
}

// end has everything deleted by its age, then the tenants: nothing is left of any list.
func (w *listWorld) end() {
	for i, t := range w.tenants {
		if i%2 == 0 {
			w.must(w.DeleteTenant(w.Context(), w.by(), t.ID))
		}
	}
	for range 2 { // what was open is shown a while longer
		w.pass(40 * time.Hour)
		w.sweep()
	}
	db, err := sql.Open("sqlite", w.path)
	w.must(err)
	defer db.Close()
	for _, table := range []string{"events", "deliveries"} {
		if left := read(w, db, `SELECT id FROM `+table); len(left) > 0 {
			w.Fatalf("%d %s are left", len(left), table)
		}
	}
	// A few may have come from the memory since the lists were looked through.
	if left := read(w, db, `SELECT last FROM postings`); len(left) > 10 {
		w.Errorf("%d rows of lists are left", len(left))
	}
	for i, t := range w.tenants {
		if i%2 != 0 {
			w.must(w.DeleteTenant(w.Context(), w.by(), t.ID))
		}
	}
	w.sweep()
	if n, left := w.Gathered(), read(w, db, `SELECT last FROM postings`); n > 0 || len(left) > 0 {
		w.Errorf("of lists of nobody %d entries are in memory, %d rows in the table", n, len(left))
	}
}

//go:embed migrations/00001_schema.sql
var firstSchema embed.FS

// A file of the version before, which had indexes in the place of lists, is read whole.
func TestListsOfAnOlderFile(t *testing.T) {
	w := newListWorld(t, 0)
	w.addTenant()
	tenant := w.tenants[0]
	for range 5 {
		w.addEndpoint(tenant)
	}
	for range 300 {
		w.publish(tenant)
		w.pass(time.Second)
	}
	w.must(w.Close())
	w.older()
	w.open() // moves what is more than it gathers
	w.check(tenant)
	w.publish(tenant)
	w.check(tenant)
}

// older makes of the file what the version before would have made.
func (w *listWorld) older() {
	w.Helper()
	db, err := sql.Open("sqlite", w.path)
	w.must(err)
	defer db.Close()
	files, err := fs.Sub(firstSchema, "migrations")
	w.must(err)
	for _, query := range []string{
		`ALTER TABLE deliveries DROP COLUMN counted`, `DROP TABLE spared`, `DROP TABLE kept`, `DROP INDEX deliveries_by_hand`, `DROP TABLE postings`, `DELETE FROM meta WHERE key LIKE 'post%'`, `DELETE FROM goose_db_version WHERE version_id > 1`,
		`CREATE INDEX deliveries_endpoint ON deliveries (endpoint)`, `CREATE INDEX events_tenant ON events (tenant)`,
	} {
		_, err := db.Exec(query)
		w.must(err)
	}
	// It is what the first schema makes.
	fresh, err := sql.Open("sqlite", filepath.Join(w.TempDir(), "fresh.db"))
	w.must(err)
	defer fresh.Close()
	p, err := goose.NewProvider(goose.DialectSQLite3, fresh, files, goose.WithDisableGlobalRegistry(true))
	w.must(err)
	_, err = p.Up(context.Background())
	w.must(err)
	const schema = `SELECT group_concat(sql, ';') FROM (SELECT sql FROM sqlite_master WHERE name NOT LIKE 'goose%' AND name NOT LIKE 'sqlite%' ORDER BY name)`
	var want, got string
	w.must(fresh.QueryRow(schema).Scan(&want))
	w.must(db.QueryRow(schema).Scan(&got))
	if want != got {
		w.Fatalf("the older schema is\n%s\nwant\n%s", got, want)
	}
}

// What was answered is in the lists of whoever asks then, while entries move from the
// memory into the table all the time.
func TestListsBesideAWriter(t *testing.T) {
	w := newListWorld(t, 8)
	w.addTenant()
	tenant := w.tenants[0]
	w.addEndpoint(tenant)
	var mu sync.Mutex
	var answered []posthorn.ID
	var publishing sync.WaitGroup
	publishing.Go(func() {
		set, err := w.EndpointSet(t.Context(), tenant.ID)
		if err != nil {
			t.Error(err)
		}
		for range 6000 {
			id, err := w.publishOne(tenant, set.Version, tenant.endpoints[0])
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			answered = append(answered, id)
			mu.Unlock()
		}
	})
	looked := 0
	for n := 0; n < 6000 && !t.Failed(); looked++ {
		mu.Lock()
		want := slices.Clone(answered[max(0, len(answered)-20):])
		n = len(answered)
		mu.Unlock()
		for what, list := range map[string]func() ([]posthorn.ID, error){
			"event": func() (ids []posthorn.ID, err error) {
				list, _, err := w.Events(t.Context(), store.EventFilter{Tenant: tenant.ID}, store.Page{Limit: 60})
				for _, e := range list {
					ids = append(ids, e.ID)
				}
				return ids, err
			},
			"delivery": func() (ids []posthorn.ID, err error) {
				list, _, err := w.Deliveries(t.Context(), store.DeliveryFilter{Endpoint: tenant.endpoints[0].ID}, store.Page{Limit: 60})
				for _, d := range list {
					ids = append(ids, d.Event)
				}
				return ids, err
			},
		} {
			got, err := list()
			w.must(err)
			if !slices.IsSortedFunc(got, func(a, b posthorn.ID) int { return cmp.Compare(b, a) }) || len(slices.Compact(slices.Clone(got))) != len(got) {
				t.Errorf("the %s list is not in order: %x", what, got)
			}
			// More may have come since, and begun a page of their own.
			for _, id := range want {
				if len(got) == 0 || id > got[len(got)-1] && !slices.Contains(got, id) {
					t.Errorf("the %s list lacks one of the last %d of %d that were answered", what, len(want), n)
				}
			}
		}
	}
	publishing.Wait()
	t.Logf("looked %d times", looked)
}

// A process that dies while entries move goes on where it was: none is written twice.
func TestMovingGoesOnAfterAKill(t *testing.T) {
	w := newListWorld(t, 64)
	w.addTenant()
	tenant := w.tenants[0]
	for range 20 {
		w.addEndpoint(tenant)
	}
	set, err := w.EndpointSet(t.Context(), tenant.ID)
	w.must(err)
	publish := func() {
		_, err := w.publishOne(tenant, set.Version, pick(w.Rand, tenant.endpoints))
		w.must(err)
	}
	for range 40 {
		publish()
		w.path = asKilled(t, w.path)
		w.open()
		for range 20 + w.IntN(60) {
			publish()
		}
		twice, err := w.PostedTwice(t.Context())
		w.must(err)
		if twice > 0 {
			t.Fatalf("%d entries of lists are twice in their table", twice)
		}
	}
	w.check(tenant)
}

// A page that meets only ids of what was deleted ends, and the next one goes on.
func TestAPageEndsAmongWhatWasDeleted(t *testing.T) {
	w := newListWorld(t, 0)
	w.addTenant()
	tenant := w.tenants[0]
	w.addEndpoint(tenant)
	for range 4000 {
		w.publish(tenant)
	}
	db, err := sql.Open("sqlite", w.path)
	w.must(err)
	defer db.Close()
	ids := read(w, db, `SELECT id FROM deliveries ORDER BY id`)
	events := read(w, db, `SELECT id FROM events ORDER BY id`)
	for _, table := range []string{"events", "deliveries"} {
		_, err := db.Exec(`DELETE FROM `+table+` WHERE id >= ? AND id < ?`, int64(events[9]), int64(events[len(events)-9]))
		w.must(err)
	}
	f := store.DeliveryFilter{Endpoint: tenant.endpoints[0].ID}
	pages, got := 0, []posthorn.ID(nil)
	for p := (store.Page{Limit: 50}); ; pages++ {
		list, next, err := w.Deliveries(t.Context(), f, p)
		w.must(err)
		for _, d := range list {
			got = append(got, d.ID)
		}
		if p.Before = next; next == 0 {
			break
		}
	}
	want := read(w, db, `SELECT id FROM deliveries ORDER BY id DESC`)
	w.same("deliveries", want, got)
	if least := len(ids) / (2 * store.PageRows); pages < least {
		t.Errorf("%d pages for %d ids, of which each may look at %d", pages, len(ids), store.PageRows)
	}
	w.same("the tenant's deliveries", want, w.deliveries(w.Store, store.DeliveryFilter{Tenant: tenant.ID}))
}

// A backup of an older version is taken, and brought to this one when it is served.
func TestAnOlderBackupIsRestored(t *testing.T) {
	w := newListWorld(t, 0)
	w.addTenant()
	w.addEndpoint(w.tenants[0])
	for range 50 {
		w.publish(w.tenants[0])
	}
	w.must(w.Close())
	w.older()
	backup, restored := w.path, filepath.Join(t.TempDir(), "restored.db")
	if _, _, err := sqlite.Restore(t.Context(), backup, restored, w.now); err != nil {
		t.Fatal(err)
	}
	w.path = restored
	w.open()
	w.check(w.tenants[0])
}

// A row of lists that cannot be read makes a bad backup, and what the design says
// mends it.
func TestADamagedRowOfLists(t *testing.T) {
	w := newListWorld(t, 5)
	w.addTenant()
	tenant := w.tenants[0]
	w.addEndpoint(tenant)
	for range 50 {
		w.publish(tenant)
	}
	w.must(w.Close())
	execute(t, w.path, `UPDATE postings SET ids = x'00ff'`)
	if _, err := sqlite.Verify(t.Context(), w.path); !errors.Is(err, sqlite.ErrCorrupt) {
		t.Errorf("verified: %v", err)
	}
	w.open()
	if _, _, err := w.Events(t.Context(), store.EventFilter{Tenant: tenant.ID}, store.Page{Limit: 1000}); !errors.Is(err, sqlite.ErrCorrupt) {
		t.Errorf("listed: %v", err)
	}
	w.must(w.Close())
	execute(t, w.path, `DELETE FROM postings; DELETE FROM meta WHERE key IN ('posted', 'posting')`)
	w.open()
	w.check(tenant)
}
