package lane

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// forgetful is a store that has lost the rows of results.
type forgetful struct{ *memory }

func (f forgetful) Record(r store.Result, done func(store.Recorded, error)) {
	f.mu.Lock()
	f.ended(store.Hold{ID: r.ID, Gen: r.Gen}, "Record")
	f.rows[r.ID].place = "done"
	f.mu.Unlock()
	go done(store.Recorded{Lost: true}, nil)
}

// An acknowledged attempt that no row takes is not passed over in silence.
func TestAnAcknowledgedAttemptWithoutARecordIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said strings.Builder
		m := newMemory(t)
		failed := m.lastID + 2
		r := newReceiver(t, func(w *store.Work) posthorn.Attempt {
			if w.ID == failed {
				return broken(w)
			}
			return ok(w)
		})
		m.endpoint(1, posthorn.Settings{MaxInFlight: 1}, 1)
		e := New(Config{Store: forgetful{m}, Sender: r, Policy: exact(), Log: slog.New(slog.NewTextHandler(&said, nil))})
		m.engine = e
		if err := e.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		id := m.publish(e, 1, time.Time{})
		m.publish(e, 1, time.Time{})
		wait(time.Minute)
		if err := e.Drain(context.Background()); err != nil {
			t.Error(err)
		}
		if text := said.String(); strings.Count(text, "in no record") != 1 || !strings.Contains(text, id.Text(posthorn.DeliveryPrefix)) {
			t.Errorf("the log says %q", text)
		}
	})
}
