package sqlite

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// TestLateDeliveries puts a delivery in the file as a replay will make it, long
// after its event: every list shows it once, where its id puts it.
func TestLateDeliveries(t *testing.T) {
	s, err := Open(t.Context(), Options{Path: filepath.Join(t.TempDir(), "a.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	event, late := posthorn.MakeID(at, 0, 0), posthorn.MakeID(at.Add(9*24*time.Hour), 0, 0)
	err = s.writer.do(t.Context(), func(tx *txn) error {
		for _, query := range []string{
			`INSERT INTO tenants (id, name, created_at) VALUES (1, 'acme', 1)`,
			`INSERT INTO endpoints (id, ref, tenant, url, description, events, status, paused_reason, paused_at, version, created_at, updated_at, settings, settings_version)
				VALUES (1, 'wh_1', 1, '', '', '[]', 'active', '', 0, 1, 1, 1, '{}', 1)`,
		} {
			if err := tx.exec(query); err != nil {
				return err
			}
		}
		if err := tx.exec(`INSERT INTO events VALUES (?, 1, '', 'cases.updated', 0, 1, ?, 0, 2, 0, 0, '', '', '')`, int64(event), nanos(at)); err != nil {
			return err
		}
		tx.post(eventsOf(1), int64(event))
		for _, id := range []posthorn.ID{event + 1, event + 2, late} {
			if err := tx.exec(`INSERT INTO deliveries (id, event, tenant, endpoint, state, place, next_at, late) VALUES (?, ?, 1, 1, 1, 0, 0, ?)`,
				int64(id), int64(event), id == late); err != nil {
				return err
			}
			tx.post(deliveriesOf(1), int64(id))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []store.DeliveryFilter{
		{Tenant: 1}, {Endpoint: 1}, {Event: event}, {Tenant: 1, Endpoint: 1}, {Tenant: 1, Event: event, Endpoint: 1},
		{Tenant: 1, Until: at.Add(time.Hour)}, {Endpoint: 1, Until: at.Add(time.Hour)}, {},
	} {
		var got []posthorn.ID
		for _, limit := range []int{1, 2, 9} {
			got = nil
			for p := (store.Page{Limit: limit}); ; {
				d, next, err := s.Deliveries(t.Context(), f, p)
				if err != nil {
					t.Fatal(err)
				}
				for _, d := range d {
					got = append(got, d.ID)
				}
				if p.Before = next; next == 0 {
					break
				}
			}
			if want := []posthorn.ID{late, event + 2, event + 1}; !slices.Equal(got, want) {
				t.Errorf("%+v by %d: got %x, want %x", f, limit, got, want)
			}
		}
	}
}

// TestListsReadInOrder holds the lists to their indexes: none sorts, and none
// walks a table from its beginning but the list of everything.
func TestListsReadInOrder(t *testing.T) {
	s, err := Open(t.Context(), Options{Path: filepath.Join(t.TempDir(), "a.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	planned := func(w walk) (string, []any) {
		if w.of != nil {
			w.args = append([]any{encodeIDs([]int64{1, 2})}, w.args...)
		}
		return w.query, w.args
	}
	all := func(f store.DeliveryFilter) (string, []any) { return planned(s.deliveryWalk(&f, 0, 1<<62)) }
	for name, walk := range map[string]func() (string, []any){
		"tenant":   func() (string, []any) { return all(store.DeliveryFilter{Tenant: 1}) },
		"endpoint": func() (string, []any) { return all(store.DeliveryFilter{Endpoint: 1}) },
		"event":    func() (string, []any) { return all(store.DeliveryFilter{Event: 1}) },
		"late":     func() (string, []any) { return lateWalk, []any{1, 0, 0, 0, 1 << 62, 10} },
		"all":      func() (string, []any) { return all(store.DeliveryFilter{}) },
		"events":   func() (string, []any) { return planned(s.eventWalk(1, 0, 1<<62)) },
		"stream":   func() (string, []any) { return streamWalk, []any{"[1]", 10} },
		"newer":    func() (string, []any) { return selectNewer, []any{1, 1, 1, 1} },
		"older":    func() (string, []any) { return selectOlder, []any{1, 1, 1} },
		"due":      func() (string, []any) { return claimDue, []any{1, 1} },
		"parked":   func() (string, []any) { return claimParked, []any{1, 1} },
		"audit":    func() (string, []any) { return auditWalk(&store.AuditFilter{Tenant: 1}, 0) },
		"audits":   func() (string, []any) { return auditWalk(&store.AuditFilter{Tenant: -1}, 0) },
	} {
		query, args := walk()
		rows, err := s.readers.Query("EXPLAIN QUERY PLAN "+query, args...)
		if err != nil {
			t.Fatal(err)
		}
		var plan []string
		err = eachRow(rows, func(r scanner) error {
			var id, parent, unused int
			var step string
			err := r.Scan(&id, &parent, &unused, &step)
			plan = append(plan, step)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		text := strings.Join(plan, "\n")
		if strings.Contains(text, "TEMP B-TREE") || strings.Contains(strings.ReplaceAll(text, "SCAN json_each", ""), "SCAN") {
			t.Errorf("%s:\n%s", name, text)
		}
	}
}
