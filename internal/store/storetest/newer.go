package storetest

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// Raw reaches the database of a store past the store, to write what a node of a
// newer version would and to see what became of it.
type Raw struct {
	// Exec runs a statement, with parameters $1, $2 and so on.
	Exec func(t testing.TB, query string, args ...any)
	// Bytes is the one value that a query finds, a text or bytes.
	Bytes func(t testing.TB, query string, args ...any) []byte
	// Open is the table of open deliveries; finished ones are in "deliveries".
	Open string
}

// newerLog is a log as a later version writes it: another version byte, flags that
// are not known, and something at the end of each entry.
func (w *world) newerLog(log []byte) []byte {
	w.Helper()
	b := []byte{log[0] + 1}
	for at := 1; at < len(log); {
		size, n := binary.Uvarint(log[at:])
		if n <= 0 || size > uint64(len(log)-at-n) {
			w.Fatalf("%x is no log", log)
		}
		entry := slices.Concat(log[at+n:at+n+int(size)], []byte("new"))
		entry[0] |= 0xf0
		b = append(binary.AppendUvarint(b, uint64(len(entry))), entry...)
		at += n + int(size)
	}
	return b
}

// outdo makes the log of a delivery one of a later version, and returns it.
func (w *world) outdo(table string, id posthorn.ID) []byte {
	w.Helper()
	log := w.newerLog(w.raw.Bytes(w, `SELECT log FROM `+table+` WHERE id = $1`, int64(id)))
	w.raw.Exec(w, `UPDATE `+table+` SET log = $1 WHERE id = $2`, log, int64(id))
	return log
}

// settingsText is the settings of an endpoint as they are stored.
func (w *world) settingsText(e posthorn.Endpoint) string {
	w.Helper()
	return string(w.raw.Bytes(w, `SELECT settings FROM endpoints WHERE id = $1`, e.ID))
}

// newerSettings holds members of a later version, of all sorts and in the midst of
// those that are known.
const newerSettings = `{"burst":12345678901234567890,"max_in_flight":3,"mood":{"a":[1,null,"ä"],"b":1.50},"headers":["X-A"],"zeal":null}`

// newerMembers are the same without those that are known.
const newerMembers = `{"burst":12345678901234567890,"mood":{"a":[1,null,"ä"],"b":1.50},"zeal":null}`

// keepsMembers holds the stored settings to the members of a later version.
func (w *world) keepsMembers(e posthorn.Endpoint, known ...string) {
	w.Helper()
	var want, got map[string]any
	text := w.settingsText(e)
	w.ok(json.Unmarshal([]byte(text), &got))
	w.ok(json.Unmarshal([]byte(newerMembers), &want))
	for name := range want {
		if _, there := got[name]; !there {
			w.Errorf("%s was lost: %s", name, text)
		}
	}
	if !strings.Contains(text, "12345678901234567890") || !strings.Contains(text, "1.50") {
		w.Errorf("a number was rewritten: %s", text)
	}
	for _, name := range known {
		if _, there := got[name]; !there {
			w.Errorf("%s is not there: %s", name, text)
		}
	}
	if len(got) != len(want)+len(known) {
		w.Errorf("stored are %s, want those of a newer version and %v", text, known)
	}
}

var newerPromises = []promise{
	{"a log of a newer version is read, and kept when a result is recorded", func(w *world) {
		to := w.endpoint()
		id := w.send(to)
		first := says(fails())
		first.Detail = "why"
		w.record(w.result(id, to, 0, first))
		want := w.delivery(id).Attempts
		log := w.outdo(w.raw.Open, id)
		if diff := cmp.Diff(want, w.delivery(id).Attempts); diff != "" {
			w.Error(diff)
		}
		list, _, err := w.s.Deliveries(w.Context(), store.DeliveryFilter{Tenant: w.tenant.ID}, store.Page{Limit: 10})
		if w.ok(err); len(list) != 1 || len(list[0].Attempts) != 1 {
			w.Errorf("listed %+v", list)
		}
		w.now = w.now.Add(time.Minute)
		if rec, err := record(w.s, w.result(id, to, 1, succeeds())); err != nil || rec.Lost {
			w.Fatalf("recorded %+v, %v", rec, err)
		}
		got := w.raw.Bytes(w, `SELECT log FROM deliveries WHERE id = $1`, int64(id))
		if !bytes.HasPrefix(got, log) {
			w.Errorf("%x became %x", log, got)
		}
		if d := w.delivery(id); d.Shown() != "succeeded" || len(d.Attempts) != 2 || d.Attempts[1].Status != 200 {
			w.Errorf("%+v", d)
		}
	}},
	{"a class of a newer version is shown as another one", func(w *world) {
		to := w.endpoint()
		id := w.send(to)
		a := fails()
		a.Class = 77
		if rec, err := record(w.s, w.result(id, to, 0, a)); err != nil || rec.Progress.State != posthorn.Pending || rec.Health.Failures != 1 {
			w.Fatalf("%+v, %v", rec, err)
		}
		got := w.delivery(id).Attempts
		if len(got) != 1 || got[0].Class != 77 || got[0].Class.String() != "other" || got[0].Succeeded() {
			w.Errorf("%+v", got)
		}
	}},
	{"a broken log keeps no result from being recorded", func(w *world) {
		to := w.endpoint()
		for _, c := range []struct {
			broken []byte
			kept   int // with the one that is recorded
		}{{[]byte{0, 1, 2}, 1}, {[]byte{1, 200}, 1}, {nil, 2}} {
			id := w.send(to)
			w.record(w.result(id, to, 0, fails()))
			if c.broken == nil { // one is whole
				c.broken = append(w.raw.Bytes(w, `SELECT log FROM `+w.raw.Open+` WHERE id = $1`, int64(id)), 0xff)
			}
			w.raw.Exec(w, `UPDATE `+w.raw.Open+` SET log = $1 WHERE id = $2`, c.broken, int64(id))
			rec, err := record(w.s, w.result(id, to, 1, fails()))
			if err != nil || rec.Lost || rec.Progress.Tries != 2 {
				w.Fatalf("of a delivery with the log %x: %+v, %v", c.broken, rec, err)
			}
			if d := w.delivery(id); len(d.Attempts) != c.kept || d.Attempts[c.kept-1].Number != 2 {
				w.Errorf("of the log %x are left %+v", c.broken, d.Attempts)
			}
		}
	}},
	{"erasing a payload keeps what a newer version added, and is not stopped by what cannot be read", func(w *world) {
		to := w.endpoint()
		event := w.publish(w.event("k", to, to))[0]
		done, broken := event.ID+1, event.ID+2
		for _, id := range []posthorn.ID{done, broken} {
			w.record(w.result(id, to, 0, says(succeeds())))
		}
		log := w.outdo("deliveries", done)
		w.raw.Exec(w, `UPDATE deliveries SET log = $1 WHERE id = $2`, append([]byte{1, 200}, "you sent"...), int64(broken))
		w.erase("k")
		got := w.raw.Bytes(w, `SELECT log FROM deliveries WHERE id = $1`, int64(done))
		if bytes.Contains(got, []byte("you sent")) || got[0] != log[0] || !bytes.HasSuffix(got, []byte("new")) {
			w.Errorf("%q became %q", log, got)
		}
		if d := w.delivery(done); len(d.Attempts) != 1 || d.Attempts[0].Status != 200 || d.Attempts[0].Snippet != nil {
			w.Errorf("%+v", d.Attempts)
		}
		if got := w.raw.Bytes(w, `SELECT coalesce(log, $2) FROM deliveries WHERE id = $1`, int64(broken), []byte{}); bytes.Contains(got, []byte("you sent")) {
			w.Errorf("%q", got)
		}
	}},
	{"settings of a newer version are kept by all that writes them", func(w *world) {
		to := w.endpoint()
		w.raw.Exec(w, `UPDATE endpoints SET settings = $1 WHERE id = $2`, newerSettings, to.ID)
		got, err := w.s.EndpointByRef(w.Context(), w.tenant.ID, to.Ref)
		w.ok(err)
		if got.Settings.MaxInFlight != 3 || !slices.Equal(got.Settings.Headers, []string{"X-A"}) {
			w.Errorf("read %+v", got.Settings)
		}
		update := func(changed bool, fn func(*posthorn.Settings) error, values ...store.SealedHeader) {
			w.Helper()
			before := w.settingsText(to)
			e, err := w.s.UpdateSettings(w.Context(), w.change(), w.tenant.ID, to.Ref, 0, fn, values...)
			w.ok(err)
			if moved := e.SettingsVersion != got.SettingsVersion; moved != changed {
				w.Errorf("the version is %d after %d", e.SettingsVersion, got.SettingsVersion)
			}
			if !changed && w.settingsText(to) != before {
				w.Errorf("%s became %s", before, w.settingsText(to))
			}
			got = e
		}
		update(false, func(*posthorn.Settings) error { return nil })
		update(true, func(s *posthorn.Settings) error { s.TimeoutSeconds = 7; return nil })
		w.keepsMembers(to, "max_in_flight", "headers", "timeout_seconds")
		update(true, func(s *posthorn.Settings) error { s.MaxInFlight = 0; return nil })
		w.keepsMembers(to, "headers", "timeout_seconds")
		// A writer of the whole document does not know them.
		update(true, func(s *posthorn.Settings) error {
			*s = posthorn.Settings{Ordered: true, Headers: []string{"X-A"}}
			return nil
		}, store.SealedHeader{Name: "X-A", Sealed: store.Sealed{KeyID: "k1", Box: []byte("v"), CreatedAt: w.now}})
		w.keepsMembers(to, "headers", "ordered")
		// The headers go with the origin, the rest stays.
		_, err = w.s.UpdateEndpoint(w.Context(), w.change(), w.tenant.ID, to.Ref, 0, func(e *posthorn.Endpoint) error {
			e.URL = "https://elsewhere.example.com/"
			return nil
		})
		w.ok(err)
		w.keepsMembers(to, "ordered")
		// An endpoint made of another one's settings has them too.
		e, err := w.s.EndpointByRef(w.Context(), w.tenant.ID, to.Ref)
		w.ok(err)
		twin, err := w.s.CreateEndpoint(w.Context(), w.change(), posthorn.Endpoint{Ref: "wh_twin", Tenant: w.tenant.ID, URL: e.URL, Events: e.Events, Settings: e.Settings}, nil, 0)
		w.ok(err)
		w.keepsMembers(twin, "ordered")
		if audit := w.audit(w.tenant.ID); strings.Contains(audit, "mood") {
			w.Errorf("the audit shows what this version does not know:\n%s", audit)
		}
	}},
	{"a state and a reason of a newer version are final, shown, and left alone", func(w *world) {
		to := w.endpoint()
		id := w.sendFailed(to)
		w.raw.Exec(w, `UPDATE deliveries SET state = 9, reason = 'superseded' WHERE id = $1`, int64(id))
		w.shown(id, "canceled", "superseded")
		if d := w.delivery(id); !d.Progress.State.Final() || d.Progress.State != 9 {
			w.Errorf("%+v", d.Progress)
		}
		w.same(w.deliveries(store.DeliveryFilter{Tenant: w.tenant.ID, State: "canceled"}, 10), []posthorn.ID{id})
		_, err := w.s.CancelDelivery(w.Context(), w.change(), w.tenant.ID, id, nil)
		w.is(err, store.ErrFinal)
		if plan := w.plan(to, posthorn.ReplaySelection{States: posthorn.ReplayableStates()}); plan.Total != 0 {
			w.Errorf("a replay would send %+v", plan)
		}
		// A late result does not change it, but a success does.
		if rec := w.record(w.result(id, to, 1, fails())); rec.Progress.State != 9 {
			w.Errorf("%+v", rec)
		}
		w.shown(id, "canceled", "superseded")
		// A user may have it attempted once more; a failure puts its state back.
		_, err = w.retry(store.RetryOrder{Delivery: id})
		w.ok(err)
		w.claimDue(10)
		w.record(w.result(id, to, 2, fails()))
		w.shown(id, "canceled", "superseded")
		if d := w.delivery(id); d.Progress.State != 9 {
			w.Errorf("%+v", d.Progress)
		}
	}},
	{"a kind of event of a newer version is delivered like another one", func(w *world) {
		to := w.endpoint()
		id := w.publish(later(w.event("k", to), w.now.Add(time.Minute)))[0].ID + 1
		w.raw.Exec(w, `UPDATE events SET kind = 9 WHERE id = $1`, int64(id-1))
		e, err := w.s.EventByRef(w.Context(), w.tenant.ID, "k")
		if w.ok(err); e.Kind != 9 {
			w.Errorf("%+v", e)
		}
		w.now = w.now.Add(2 * time.Minute)
		work := w.claimDue(10)
		if len(work) != 1 || work[0].Kind != 9 {
			w.Fatalf("%+v", work)
		}
		r := w.result(id, to, 0, fails())
		r.Kind = work[0].Kind
		if rec := w.record(r); rec.Health.Failures != 1 {
			w.Errorf("%+v", rec)
		}
	}},
	{"an endpoint's status and reason of a newer version are kept, and nothing is sent", func(w *world) {
		to := w.endpoint()
		id := w.send(to)
		at := w.now.UnixNano()
		w.raw.Exec(w, `UPDATE endpoints SET status = 'draining', paused_reason = 'quota', paused_at = $1 WHERE id = $2`, at, to.ID)
		w.shown(id, posthorn.Held, "")
		e, err := w.s.UpdateEndpoint(w.Context(), w.change(), w.tenant.ID, to.Ref, 0, func(e *posthorn.Endpoint) error { e.Description = "new"; return nil })
		w.ok(err)
		if e.Active() || e.Status != "draining" || e.PausedReason != "quota" || e.PausedAt.UnixNano() != at {
			w.Errorf("%+v", e)
		}
		if got := string(w.raw.Bytes(w, `SELECT status FROM endpoints WHERE id = $1`, to.ID)); got != "draining" {
			w.Errorf("stored is %s", got)
		}
		_, err = w.retry(store.RetryOrder{Delivery: id, Held: holds(id)})
		w.ok(err)
		w.claimDue(10)
		w.ok(w.s.Park(w.Context(), holds(id)))
		w.gets(to, 10, true, time.Time{})
		if e = w.setStatus(to, posthorn.StatusActive); !e.Active() || e.PausedReason != "" {
			w.Errorf("%+v", e)
		}
	}},
	{"a replay in a state of a newer version is shown and not fed", func(w *world) {
		to := w.endpoint()
		w.sendFailed(to)
		r := w.replay(to, posthorn.ReplaySelection{})
		w.raw.Exec(w, `UPDATE replays SET state = 9 WHERE id = $1`, r.ID)
		got := w.replayNow(r)
		if got.State != 9 || !got.State.Final() || got.State.String() != "canceled" {
			w.Errorf("%+v, shown as %s", got, got.State)
		}
		if running, err := w.s.RunningReplays(w.Context(), 0, 10); err != nil || len(running) != 0 {
			w.Errorf("running are %+v, %v", running, err)
		}
		_, err := w.s.FeedReplay(w.Context(), r.ID, 10, w.now)
		w.is(err, store.ErrFinal)
		_, err = w.s.SetReplay(w.Context(), w.change(), w.tenant.ID, r.Ref, posthorn.ReplayPaused, nil)
		w.is(err, store.ErrFinal)
	}},
	{"of a replay's selection what a newer version wrote is skipped", func(w *world) {
		to := w.endpoint()
		id := w.sendFailed(to)
		w.now = w.now.Add(time.Second)
		r := w.replay(to, posthorn.ReplaySelection{})
		w.raw.Exec(w, `UPDATE replays SET selection = $1 WHERE id = $2`, `{"since":"0001-01-01T00:00:00Z","until":"0001-01-01T00:00:00Z","note":{"by":"x"},"states":["failed","superseded"]}`, r.ID)
		if got := w.replayNow(r); !slices.Contains(got.Selection.States, "superseded") {
			w.Errorf("%+v", got.Selection)
		}
		w.same(ids(w.feedAll(r, 10)), []posthorn.ID{id})
	}},
	{"a note in a newer form is no note", func(w *world) {
		to := w.endpoint()
		e := w.event("", to)
		e.Targets[0].Note = "why"
		id := w.publish(e)[0].ID + 1
		if d := w.delivery(id); d.Note != "why" {
			w.Errorf("%+v", d)
		}
		w.raw.Exec(w, `UPDATE event_notes SET notes = '{"why":{"endpoints":[1]},"2":7}' WHERE event = $1`, int64(id-1))
		if d := w.delivery(id); d.Note != "" {
			w.Errorf("%+v", d)
		}
	}},
	{"figures of a newer version are left alone", func(w *world) {
		w.raw.Exec(w, `INSERT INTO meta (key, value) VALUES ('of_tomorrow', 7)`)
		w.ok(w.s.NoteKeys(w.Context(), map[string]int64{"k1": 1}))
		w.ok(w.s.SetSending(w.Context(), w.change(), false))
		if got := string(w.raw.Bytes(w, `SELECT cast(value AS text) FROM meta WHERE key = 'of_tomorrow'`)); got != "7" {
			w.Errorf("it is %q", got)
		}
	}},
}
