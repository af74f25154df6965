package ill_test

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/posthorn/posthorn/internal/store/postgres/ill"
	"github.com/posthorn/posthorn/internal/store/postgres/pgtest"
)

func TestAWireIsSilentBrokenAndOpen(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	for name, address := range map[string]string{"socket": w.URL(w.database), "tcp": w.TCP(w.database)} {
		t.Run(name, func(t *testing.T) {
			c := w.dial(address)
			w.exec(c, insert, 1, "")
			w.Set(ill.Silent)
			call := beside(func() error { return ways["prepared"](t.Context(), c, 2, "") })
			dialed := beside(func() error {
				c, err := pgx.Connect(t.Context(), address)
				if err == nil {
					err = c.Close(t.Context())
				}
				return err
			})
			if w.kept(2) != 0 {
				t.Error("it passed")
			}
			w.waiting(call)
			w.waiting(dialed)
			w.Set(ill.Open)
			if err := w.result(call); err != nil {
				t.Error(err)
			}
			if err := w.result(dialed); err != nil {
				t.Error(err)
			}
			w.Set(ill.Broken)
			if err := ways["prepared"](t.Context(), c, 3, ""); err == nil {
				t.Error("it is not broken")
			}
			if _, err := pgx.Connect(t.Context(), address); err == nil {
				t.Error("new connections are made")
			}
			w.Set(ill.Open)
			w.exec(w.dial(address), `DELETE FROM kept`)
		})
	}
}

func TestASilentWireStopsWhatIsReleased(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	c := w.node("node")
	w.exec(c, insert, 1, "")
	s := w.Strike(ill.Fault{Statement: "INSERT", Do: ill.Hold})
	call := beside(func() error { return ways["prepared"](t.Context(), c, 2, "") })
	w.struck(s)
	w.Set(ill.Silent)
	s.Release()
	if w.kept(2) != 0 {
		t.Error("it passed")
	}
	w.waiting(call)
	w.Set(ill.Open)
	if err := w.result(call); err != nil || w.kept(2) != 1 {
		t.Errorf("%d rows, %v", w.kept(2), err)
	}
}

// TestARefusalToEncryptPasses asks for TLS first, as most clients do; the tests'
// server has none.
func TestARefusalToEncryptPasses(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	s := w.Strike(ill.Fault{Statement: "SELECT 7", Purpose: "node"})
	c := w.dial(strings.Replace(w.TCP(w.database), "sslmode=disable", "sslmode=prefer&application_name=node", 1))
	if _, err := c.Exec(t.Context(), `SELECT 7`); err == nil {
		t.Error("the statement was not heard")
	}
	w.struck(s)
}

func TestAWireLeadsElsewhere(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	c := w.node("node")
	w.Lead(t.TempDir())
	if _, err := pgx.Connect(t.Context(), w.URL(w.database)); err == nil {
		t.Error("it leads to the same server")
	}
	w.exec(c, `SELECT 1`) // what is connected stays
	w.Lead(pgtest.Socket(t))
	w.exec(w.node("node"), `SELECT 1`)
}
