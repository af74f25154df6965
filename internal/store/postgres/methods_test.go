package postgres_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/postgres"
	"github.com/posthorn/posthorn/internal/store/postgres/ill"
	"github.com/posthorn/posthorn/internal/store/postgres/pgtest"
	"github.com/posthorn/posthorn/internal/tally"
)

// ward is a database on which every method of the store is tried while one of its
// statements is ill.
type ward struct {
	*cluster
	s    *postgres.Store // behind the wire
	well *postgres.Store // another node, which makes what a method needs
	n    atomic.Int64
}

func (w *ward) change() store.Change { return store.Change{Actor: "test", At: time.Now()} }

// name is one that nobody used.
func (w *ward) name() string { return fmt.Sprintf("n%d", w.n.Add(1)) }

func (w *ward) must(err error) {
	w.Helper()
	if err != nil {
		w.Error(err)
	}
}

func (w *ward) newTenant() posthorn.Tenant {
	t, err := w.well.CreateTenant(w.Context(), w.change(), w.name())
	w.must(err)
	return t
}

func (w *ward) create(on *postgres.Store, tenant int64) (posthorn.Endpoint, error) {
	ref := posthorn.NewRef(posthorn.EndpointPrefix, time.Now())
	return on.CreateEndpoint(w.Context(), w.change(), posthorn.Endpoint{
		Ref: ref, Tenant: tenant, URL: "https://example.com/" + ref, Events: []posthorn.Pattern{"*"},
		Status: posthorn.StatusActive,
	}, func(int64) (store.Sealed, error) { return store.Sealed{KeyID: "k", Box: []byte("s")}, nil }, 1000)
}

func (w *ward) newEndpoint() posthorn.Endpoint {
	e, err := w.create(w.well, w.newTenant().ID)
	w.must(err)
	return e
}

// publishTo publishes an event to an endpoint and returns its delivery.
func (w *ward) publishTo(on *postgres.Store, e posthorn.Endpoint, change func(*store.Publication)) ([]store.Accepted, error) {
	set, err := w.well.EndpointSet(w.Context(), e.Tenant)
	w.must(err)
	event := w.event(w.name())
	event.Targets = []store.PublishTarget{{Endpoint: e.ID}}
	p := store.Publication{Tenant: e.Tenant, SetVersion: set.Version, At: time.Now(), BacklogLimit: 1000, Events: []store.NewEvent{event}}
	if change != nil {
		change(&p)
	}
	return on.Publish(w.Context(), p)
}

func (w *ward) held(on *postgres.Store, e posthorn.Endpoint) store.Hold {
	a, err := w.publishTo(on, e, nil)
	if err != nil {
		w.Error(err)
		return store.Hold{}
	}
	return store.Hold{ID: a[0].ID + 1, Gen: a[0].Gen}
}

func (w *ward) failed(e posthorn.Endpoint) store.Hold {
	h := w.held(w.well, e)
	r := w.result(h.ID, posthorn.ClassHTTPStatus)
	r.Endpoint, r.Tenant, r.Gen, r.Policy.Schedule = e.ID, e.Tenant, h.Gen, nil
	_, err := record(w.well, r)
	w.must(err)
	return h
}

func (w *ward) newToken() store.Token {
	name := w.name()
	t, err := w.well.CreateToken(w.Context(), w.change(), store.Token{Ref: "tok_" + name, Tenant: w.tenant.ID, Name: name, Hash: sha256.Sum256([]byte(name))})
	w.must(err)
	return t
}

func (w *ward) newReplay() posthorn.Replay {
	e := w.newEndpoint()
	w.failed(e)
	sel := posthorn.ReplaySelection{Since: time.Now().Add(-time.Hour)}
	plan, err := w.well.PlanReplay(w.Context(), e.Tenant, e.ID, sel)
	w.must(err)
	r, err := w.well.CreateReplay(w.Context(), w.change(), posthorn.Replay{Ref: "rpl_" + w.name(), Tenant: e.Tenant, Endpoint: e.ID, Selection: sel}, plan, nil)
	w.must(err)
	return r
}

func (w *ward) newOutboxRow(refused bool) int64 {
	name := w.name()
	pgtest.Exec(w, w.url, `SELECT posthorn.publish('acme', 'cases.updated', '{}', id => $1)`, name)
	rows, err := w.well.OutboxRows(w.Context(), false, 0, 250)
	w.must(err)
	for _, r := range rows {
		if r.Key == name {
			if refused {
				w.must(w.well.OutboxRefuse(w.Context(), time.Now(), map[int64]string{r.ID: "no"}))
			}
			return r.ID
		}
	}
	w.Errorf("the outbox has no %s", name)
	return 0
}

// method is a call that can be made again and again, prepared by the node that is
// well.
type method func(w *ward) (call func(ctx context.Context, s *postgres.Store) error)

// reads are methods that need nothing.
func reads[T any](call func(ctx context.Context, w *ward, s *postgres.Store) (T, error)) method {
	return func(w *ward) func(context.Context, *postgres.Store) error {
		return func(ctx context.Context, s *postgres.Store) error {
			_, err := call(ctx, w, s)
			return err
		}
	}
}

type call = func(ctx context.Context, s *postgres.Store) error

// methods are all that the store does with its database.
var methods = map[string]method{
	"Ping": func(*ward) call { return func(ctx context.Context, s *postgres.Store) error { return s.Ping(ctx) } },
	"CreateTenant": func(w *ward) call {
		return func(ctx context.Context, s *postgres.Store) error {
			_, err := s.CreateTenant(ctx, w.change(), w.name())
			return err
		}
	},
	"TenantByName": reads(func(ctx context.Context, w *ward, s *postgres.Store) (posthorn.Tenant, error) {
		return s.TenantByName(ctx, "acme")
	}),
	"TenantByID": reads(func(ctx context.Context, w *ward, s *postgres.Store) (posthorn.Tenant, error) {
		return s.TenantByID(ctx, w.tenant.ID)
	}),
	"Tenants": reads(func(ctx context.Context, w *ward, s *postgres.Store) ([]posthorn.Tenant, error) {
		return s.Tenants(ctx, 0, 10)
	}),
	"SuspendTenant": func(w *ward) call {
		t := w.newTenant()
		return func(ctx context.Context, s *postgres.Store) error {
			_, err := s.SuspendTenant(ctx, w.change(), t.ID, true)
			return err
		}
	},
	"DeleteTenant": func(w *ward) call {
		e := w.newEndpoint()
		return func(ctx context.Context, s *postgres.Store) error { return s.DeleteTenant(ctx, w.change(), e.Tenant) }
	},
	"Sending": reads(func(ctx context.Context, _ *ward, s *postgres.Store) (bool, error) { return s.Sending(ctx) }),
	"SetSending": func(w *ward) call {
		on, err := w.well.Sending(w.Context())
		w.must(err)
		return func(ctx context.Context, s *postgres.Store) error { return s.SetSending(ctx, w.change(), !on) }
	},
	"CreateToken": func(w *ward) call {
		return func(ctx context.Context, s *postgres.Store) error {
			name := w.name()
			_, err := s.CreateToken(ctx, w.change(), store.Token{Ref: "tok_" + name, Tenant: w.tenant.ID, Name: name, Hash: sha256.Sum256([]byte(name))})
			return err
		}
	},
	"TokenByHash": func(w *ward) call {
		t := w.newToken()
		return func(ctx context.Context, s *postgres.Store) error {
			_, err := s.TokenByHash(ctx, t.Hash)
			return err
		}
	},
	"Tokens": reads(func(ctx context.Context, w *ward, s *postgres.Store) ([]store.Token, error) {
		return s.Tokens(ctx, -1, 0, 10)
	}),
	"DeleteToken": func(w *ward) call {
		t := w.newToken()
		return func(ctx context.Context, s *postgres.Store) error { return s.DeleteToken(ctx, w.change(), -1, t.Ref) }
	},
	"TouchTokens": func(w *ward) call {
		t := w.newToken()
		return func(ctx context.Context, s *postgres.Store) error {
			return s.TouchTokens(ctx, map[int64]time.Time{t.ID: time.Now()})
		}
	},
	"CreateEndpoint": func(w *ward) call {
		t := w.newTenant()
		return func(ctx context.Context, s *postgres.Store) error {
			_, err := w.create(s, t.ID)
			return err
		}
	},
	"EndpointByRef": reads(func(ctx context.Context, w *ward, s *postgres.Store) (posthorn.Endpoint, error) {
		return s.EndpointByRef(ctx, w.tenant.ID, w.to.Ref)
	}),
	"EndpointsOf": reads(func(ctx context.Context, w *ward, s *postgres.Store) ([]posthorn.Endpoint, error) {
		return s.EndpointsOf(ctx, w.tenant.ID, "", 0)
	}),
	"UpdateEndpoint": func(w *ward) call {
		e := w.newEndpoint()
		return func(ctx context.Context, s *postgres.Store) error {
			_, err := s.UpdateEndpoint(ctx, w.change(), e.Tenant, e.Ref, 0, func(e *posthorn.Endpoint) error {
				e.URL = "https://example.com/" + w.name()
				return nil
			})
			return err
		}
	},
	"UpdateSettings": func(w *ward) call {
		e := w.newEndpoint()
		return func(ctx context.Context, s *postgres.Store) error {
			_, err := s.UpdateSettings(ctx, w.change(), e.Tenant, e.Ref, 0, func(p *posthorn.Settings) error {
				p.Ordered, p.Headers = !p.Ordered, []string{"A"}
				return nil
			}, store.SealedHeader{Name: "A", Sealed: store.Sealed{KeyID: "k", Box: []byte("b")}})
			return err
		}
	},
	"DeleteEndpoint": func(w *ward) call {
		e := w.newEndpoint()
		return func(ctx context.Context, s *postgres.Store) error {
			return s.DeleteEndpoint(ctx, w.change(), e.Tenant, e.Ref, 0)
		}
	},
	"RevealSecrets": func(w *ward) call {
		return func(ctx context.Context, s *postgres.Store) error {
			_, _, err := s.RevealSecrets(ctx, w.change(), w.tenant.ID, w.to.Ref)
			return err
		}
	},
	"ChangeSecrets": func(w *ward) call {
		e := w.newEndpoint()
		return func(ctx context.Context, s *postgres.Store) error {
			return s.ChangeSecrets(ctx, w.change(), e.Tenant, e.Ref, func(_ posthorn.Endpoint, valid []store.Sealed) ([]store.Sealed, error) {
				return []store.Sealed{{KeyID: "k", Box: []byte(w.name())}}, nil
			})
		}
	},
	"EndpointSet": reads(func(ctx context.Context, w *ward, s *postgres.Store) (store.EndpointSet, error) {
		return s.EndpointSet(ctx, w.tenant.ID)
	}),
	"Target": reads(func(ctx context.Context, w *ward, s *postgres.Store) (store.Target, error) {
		return s.Target(ctx, w.to.ID)
	}),
	"EndpointHealth": func(w *ward) call {
		return func(ctx context.Context, s *postgres.Store) error {
			_, _, _, err := s.EndpointHealth(ctx, w.to.ID, 10)
			return err
		}
	},
	"WarningsDue": reads(func(ctx context.Context, w *ward, s *postgres.Store) ([]int64, error) {
		return s.WarningsDue(ctx, time.Now(), 10)
	}),
	"LineHead": func(w *ward) call {
		return func(ctx context.Context, s *postgres.Store) error {
			_, _, err := s.LineHead(ctx, w.to.ID)
			return err
		}
	},
	"MarkWarned": func(w *ward) call {
		e := w.newEndpoint()
		pgtest.Exec(w, w.url, `UPDATE posthorn.endpoint_health SET failing_since = 1, failures = 20, last_error = 'x' WHERE endpoint = $1`, e.ID)
		return func(ctx context.Context, s *postgres.Store) error {
			_, err := s.MarkWarned(ctx, e.ID, time.Now())
			return err
		}
	},
	"Turns": reads(func(ctx context.Context, w *ward, s *postgres.Store) ([]store.Turn, error) { return s.Turns(ctx, 10) }),
	"ForgetTurn": func(*ward) call {
		return func(ctx context.Context, s *postgres.Store) error { return s.ForgetTurn(ctx, 4711) }
	},
	"NoteKeys": func(*ward) call {
		return func(ctx context.Context, s *postgres.Store) error { return s.NoteKeys(ctx, map[string]int64{"k": 1}) }
	},
	"NotedKeys": reads(func(ctx context.Context, w *ward, s *postgres.Store) (map[string]int64, error) {
		return s.NotedKeys(ctx)
	}),
	"Boxes": reads(func(ctx context.Context, w *ward, s *postgres.Store) ([]store.Box, error) {
		return s.Boxes(ctx, store.Box{}, 10)
	}),
	"Reseal": func(w *ward) call {
		boxes, err := w.well.Boxes(w.Context(), store.Box{}, 1)
		w.must(err)
		return func(ctx context.Context, s *postgres.Store) error {
			_, err := s.Reseal(ctx, w.change(), []store.Resealed{{Box: boxes[0], NewKeyID: "k", NewSealed: []byte(w.name())}})
			return err
		}
	},
	"Publish": func(w *ward) call {
		e := w.newEndpoint()
		return func(ctx context.Context, s *postgres.Store) error {
			_, err := w.publishTo(s, e, nil)
			return err
		}
	},
	"Publish, matching within the commit": func(w *ward) call {
		e := w.newEndpoint()
		return func(ctx context.Context, s *postgres.Store) error {
			_, err := w.publishTo(s, e, func(p *store.Publication) {
				p.SetVersion = 0
				p.Match = func(store.EndpointSet) error { return nil }
			})
			return err
		}
	},
	"ClaimDue": func(w *ward) call {
		_, err := w.publishTo(w.well, w.newEndpoint(), func(p *store.Publication) { p.Events[0].DeliverAt = p.At.Add(time.Millisecond) })
		w.must(err)
		return func(ctx context.Context, s *postgres.Store) error {
			work, _, err := s.ClaimDue(ctx, time.Now().Add(time.Second), 10)
			return errors.Join(err, w.giveUp(s, work))
		}
	},
	"ClaimParked": func(w *ward) call {
		e := w.newEndpoint()
		_, err := w.publishTo(w.well, e, func(p *store.Publication) { p.Events[0].Targets[0].Parked = true })
		w.must(err)
		return func(ctx context.Context, s *postgres.Store) error {
			work, _, _, err := s.ClaimParked(ctx, e.ID, 10)
			return errors.Join(err, w.giveUp(s, work))
		}
	},
	"ParkedEndpoints": reads(func(ctx context.Context, w *ward, s *postgres.Store) ([]int64, error) {
		return s.ParkedEndpoints(ctx, 0, 10)
	}),
	"Park": func(w *ward) call {
		h := w.held(w.s, w.newEndpoint())
		return func(ctx context.Context, s *postgres.Store) error { return s.Park(ctx, []store.Hold{h}) }
	},
	"Payload": func(w *ward) call {
		a, err := w.publishTo(w.well, w.newEndpoint(), nil)
		w.must(err)
		return func(ctx context.Context, s *postgres.Store) error {
			_, err := s.Payload(ctx, a[0].ID)
			return err
		}
	},
	"Record": func(w *ward) call {
		e := w.newEndpoint()
		h := w.held(w.s, e)
		return func(ctx context.Context, s *postgres.Store) error {
			r := w.result(h.ID, posthorn.ClassOK)
			r.Endpoint, r.Tenant, r.Gen = e.ID, e.Tenant, h.Gen
			rec, err := record(s, r)
			if rec.Lost && !errors.Is(err, store.ErrUnavailable) {
				r, err := s.DeliveryByID(context.WithoutCancel(ctx), e.Tenant, h.ID)
				if err != nil || r.Progress.State != posthorn.Succeeded {
					return fmt.Errorf("the result is lost and the delivery %v, %v", r.Progress.State, err)
				}
			}
			return err
		}
	},
	"Events": func(w *ward) call {
		return func(ctx context.Context, s *postgres.Store) error {
			_, _, err := s.Events(ctx, store.EventFilter{Tenant: w.tenant.ID}, store.Page{Limit: 10})
			return err
		}
	},
	"EventByRef": func(w *ward) call {
		e := w.newEndpoint()
		a, err := w.publishTo(w.well, e, nil)
		w.must(err)
		return func(ctx context.Context, s *postgres.Store) error {
			d, err := s.DeliveryByID(ctx, e.Tenant, a[0].ID+1)
			if err == nil {
				_, err = s.EventByRef(ctx, e.Tenant, d.EventRef)
			}
			return err
		}
	},
	"Deliveries": func(w *ward) call {
		return func(ctx context.Context, s *postgres.Store) error {
			_, _, err := s.Deliveries(ctx, store.DeliveryFilter{Tenant: w.tenant.ID}, store.Page{Limit: 10})
			return err
		}
	},
	"DeliveryByID": func(w *ward) call {
		e := w.newEndpoint()
		h := w.held(w.well, e)
		return func(ctx context.Context, s *postgres.Store) error {
			_, err := s.DeliveryByID(ctx, e.Tenant, h.ID)
			return err
		}
	},
	"FormerEndpoint": reads(func(ctx context.Context, w *ward, s *postgres.Store) (posthorn.Endpoint, error) {
		return s.FormerEndpoint(ctx, w.tenant.ID, w.to.Ref)
	}),
	"LookupOnce": func(w *ward) call {
		return func(ctx context.Context, s *postgres.Store) error {
			return s.LookupOnce(ctx, store.Once{Tenant: w.tenant.ID, Route: "r", Key: "k"}, time.Now())
		}
	},
	"Sweep": func(w *ward) call {
		e := w.newEndpoint()
		w.held(w.well, e)
		w.must(w.well.DeleteEndpoint(w.Context(), w.change(), e.Tenant, e.Ref, 0))
		return func(ctx context.Context, s *postgres.Store) error {
			_, err := s.Sweep(ctx, time.Now(), store.Retention{Events: 30 * day})
			return err
		}
	},
	"ReadBack": reads(func(ctx context.Context, _ *ward, s *postgres.Store) (int, error) {
		return s.ReadBack(ctx, time.Now(), posthorn.DefaultPolicy())
	}),
	"Clocks": reads(func(ctx context.Context, _ *ward, s *postgres.Store) ([]postgres.ClockOf, error) {
		nodes, _, err := s.Clocks(ctx, time.Now)
		return nodes, err
	}),
	"Counts": reads(func(ctx context.Context, _ *ward, s *postgres.Store) (store.Counts, error) { return s.Counts(ctx) }),
	"Outlook": reads(func(ctx context.Context, _ *ward, s *postgres.Store) (store.Outlook, error) {
		return s.Outlook(ctx, time.Now())
	}),
	"ErasePayload": func(w *ward) call {
		e := w.newEndpoint()
		h := w.held(w.well, e)
		d, err := w.well.DeliveryByID(w.Context(), e.Tenant, h.ID)
		w.must(err)
		return func(ctx context.Context, s *postgres.Store) error {
			_, err := s.ErasePayload(ctx, w.change(), e.Tenant, d.EventRef)
			return err
		}
	},
	"Deletions": reads(func(ctx context.Context, _ *ward, s *postgres.Store) ([]store.Deletion, error) {
		return s.Deletions(ctx, 0, 10)
	}),
	"CreateExport": func(w *ward) call {
		return func(ctx context.Context, s *postgres.Store) error {
			return s.CreateExport(ctx, w.change(), store.Export{Ref: "exp_" + w.name(), Tenant: w.tenant.ID, Until: time.Now(), CreatedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour)})
		}
	},
	"ExportByRef": func(w *ward) call {
		ref := "exp_" + w.name()
		w.must(w.well.CreateExport(w.Context(), w.change(), store.Export{Ref: ref, Tenant: w.tenant.ID, Until: time.Now(), CreatedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour)}))
		return func(ctx context.Context, s *postgres.Store) error {
			_, err := s.ExportByRef(ctx, w.tenant.ID, ref, time.Now())
			return err
		}
	},
	"Note": func(w *ward) call {
		return func(ctx context.Context, s *postgres.Store) error {
			return s.Note(ctx, w.change(), w.tenant.ID, store.Audit{Action: "export.read"})
		}
	},
	"AuditEntries": func(w *ward) call {
		return func(ctx context.Context, s *postgres.Store) error {
			_, _, err := s.AuditEntries(ctx, store.AuditFilter{Tenant: w.tenant.ID}, 0, 10)
			return err
		}
	},
	"StreamEnd": reads(func(ctx context.Context, _ *ward, s *postgres.Store) (store.StreamPlace, error) {
		return s.StreamEnd(ctx)
	}),
	"Stream": func(w *ward) call {
		e := w.newEndpoint()
		_, err := w.publishTo(w.well, e, nil)
		w.must(err)
		return func(ctx context.Context, s *postgres.Store) error {
			_, err := s.Stream(ctx, store.StreamFilter{Tenant: e.Tenant}, store.StreamPlace{})
			return err
		}
	},
	"Stats": reads(func(ctx context.Context, w *ward, s *postgres.Store) ([]store.Slot, error) {
		return s.Stats(ctx, store.StatsFilter{Tenant: w.tenant.ID, Endpoint: w.to.ID, From: time.Now().Add(-time.Hour).Unix() / 3600, Until: time.Now().Unix()/3600 + 1, Step: 1})
	}),
	"Retry": func(w *ward) call {
		e := w.newEndpoint()
		h := w.held(w.s, e)
		return func(ctx context.Context, s *postgres.Store) error {
			_, err := s.Retry(ctx, w.change(), store.RetryOrder{Tenant: e.Tenant, Delivery: h.ID, Held: []store.Hold{h}}, nil)
			if errors.Is(err, store.ErrUnavailable) && !errors.Is(err, store.ErrUnsettled) {
				return errors.Join(err, s.Park(context.WithoutCancel(ctx), []store.Hold{h})) // as an engine does
			}
			return err
		}
	},
	"CancelDelivery": func(w *ward) call {
		e := w.newEndpoint()
		h := w.held(w.well, e)
		return func(ctx context.Context, s *postgres.Store) error {
			_, err := s.CancelDelivery(ctx, w.change(), e.Tenant, h.ID, nil)
			return err
		}
	},
	"CancelEvent": func(w *ward) call {
		e := w.newEndpoint()
		h := w.held(w.well, e)
		return func(ctx context.Context, s *postgres.Store) error {
			_, err := s.CancelEvent(ctx, w.change(), e.Tenant, h.ID-1, nil)
			return err
		}
	},
	"CountPending": func(w *ward) call {
		return func(ctx context.Context, s *postgres.Store) error {
			_, err := s.CountPending(ctx, store.CancelFilter{Tenant: w.tenant.ID, Endpoint: w.to.ID, Until: time.Now()})
			return err
		}
	},
	"CancelPending": func(w *ward) call {
		e := w.newEndpoint()
		w.held(w.well, e)
		return func(ctx context.Context, s *postgres.Store) error {
			_, _, err := s.CancelPending(ctx, w.change(), store.CancelFilter{Tenant: e.Tenant, Endpoint: e.ID, Until: time.Now().Add(time.Hour)}, 10, nil)
			return err
		}
	},
	"PlanReplay": reads(func(ctx context.Context, w *ward, s *postgres.Store) (store.ReplayPlan, error) {
		return s.PlanReplay(ctx, w.tenant.ID, w.to.ID, posthorn.ReplaySelection{Since: time.Now().Add(-time.Hour)})
	}),
	"CreateReplay": func(w *ward) call {
		e := w.newEndpoint()
		w.failed(e)
		sel := posthorn.ReplaySelection{Since: time.Now().Add(-time.Hour)}
		plan, err := w.well.PlanReplay(w.Context(), e.Tenant, e.ID, sel)
		w.must(err)
		return func(ctx context.Context, s *postgres.Store) error {
			_, err := s.CreateReplay(ctx, w.change(), posthorn.Replay{Ref: "rpl_" + w.name(), Tenant: e.Tenant, Endpoint: e.ID, Selection: sel}, plan, nil)
			return err
		}
	},
	"ReplayByRef": func(w *ward) call {
		r := w.newReplay()
		return func(ctx context.Context, s *postgres.Store) error {
			_, err := s.ReplayByRef(ctx, r.Tenant, r.Ref)
			return err
		}
	},
	"Replays": reads(func(ctx context.Context, w *ward, s *postgres.Store) ([]posthorn.Replay, error) {
		return s.Replays(ctx, w.tenant.ID, 0, 0, 10)
	}),
	"SetReplay": func(w *ward) call {
		r := w.newReplay()
		return func(ctx context.Context, s *postgres.Store) error {
			_, err := s.SetReplay(ctx, w.change(), r.Tenant, r.Ref, posthorn.ReplayPaused, nil)
			return err
		}
	},
	"RunningReplays": reads(func(ctx context.Context, w *ward, s *postgres.Store) ([]posthorn.Replay, error) {
		return s.RunningReplays(ctx, 0, 10)
	}),
	"FeedReplay": func(w *ward) call {
		r := w.newReplay()
		return func(ctx context.Context, s *postgres.Store) error {
			fed, err := s.FeedReplay(ctx, r.ID, 10, time.Now())
			return errors.Join(err, w.giveUp(s, fed.Work))
		}
	},
	"OutboxWaiting": func(w *ward) call {
		w.newOutboxRow(false)
		return func(ctx context.Context, s *postgres.Store) error {
			_, err := s.OutboxWaiting(ctx, nil, 10)
			return err
		}
	},
	"OutboxRefuse": func(w *ward) call {
		id := w.newOutboxRow(false)
		return func(ctx context.Context, s *postgres.Store) error {
			return s.OutboxRefuse(ctx, time.Now(), map[int64]string{id: "no"})
		}
	},
	"OutboxAhead": func(*ward) call {
		return func(ctx context.Context, s *postgres.Store) error { return s.OutboxAhead(ctx, time.Hour) }
	},
	"OutboxRows": reads(func(ctx context.Context, w *ward, s *postgres.Store) ([]store.OutboxRow, error) {
		return s.OutboxRows(ctx, true, 0, 10)
	}),
	"OutboxByID": func(w *ward) call {
		id := w.newOutboxRow(false)
		return func(ctx context.Context, s *postgres.Store) error {
			_, err := s.OutboxByID(ctx, id)
			return err
		}
	},
	"OutboxRetry": func(w *ward) call {
		id := w.newOutboxRow(true)
		return func(ctx context.Context, s *postgres.Store) error { return s.OutboxRetry(ctx, w.change(), id) }
	},
	"OutboxDrop": func(w *ward) call {
		id := w.newOutboxRow(true)
		return func(ctx context.Context, s *postgres.Store) error {
			return s.OutboxDrop(ctx, w.change(), id)
		}
	},
	"OutboxCounts": func(w *ward) call {
		return func(ctx context.Context, s *postgres.Store) error {
			_, _, _, err := s.OutboxCounts(ctx, 10)
			return err
		}
	},
}

// giveUp gives back what a claim brought, as an engine does that cannot take it.
func (w *ward) giveUp(s *postgres.Store, work []store.Work) error {
	var holds []store.Hold
	for i := range work {
		holds = append(holds, work[i].Hold())
	}
	if len(holds) == 0 {
		return nil
	}
	err := s.Park(w.Context(), holds)
	for began := time.Now(); away(err) && time.Since(began) < 20*time.Second; {
		<-time.After(10 * time.Millisecond)
		err = s.Park(w.Context(), holds)
	}
	return err
}

// notCalls are methods that ask the database nothing.
var notCalls = []string{"Watch", "WatchSettling", "Close", "Forget", "MayAttempt", "OutboxChanged", "Walks"}

func TestEveryMethodIsTried(t *testing.T) {
	for _, of := range []reflect.Type{reflect.TypeFor[store.Store](), reflect.TypeFor[store.Outbox]()} {
		for i := range of.NumMethod() {
			name := of.Method(i).Name
			if _, ok := methods[name]; !ok && !slices.Contains(notCalls, name) {
				t.Errorf("%s is not in the table of methods", name)
			}
		}
	}
}

// TestEveryMethodEndsOnAnIllDatabase has each statement of each method held,
// delayed, dropped and silenced, before the server acts and after it did. The method
// ends within its deadline; called again, it works; and nothing that was owned
// meanwhile is nobody's.
func TestEveryMethodEndsOnAnIllDatabase(t *testing.T) {
	t.Parallel()
	// A server of its own: what is shown needs no disk, and others need theirs.
	server := pgtest.ThrowAway(t, "fsync=off")
	const model = "model"
	pgtest.Exec(t, server.URL(), "CREATE DATABASE "+model)
	if _, _, err := postgres.Migrate(t.Context(), pgtest.SocketURL(server.Dir(), model)); err != nil {
		t.Fatal(err)
	}
	dir := server.Dir()
	jobs := make(chan string)
	var wg sync.WaitGroup
	var cases atomic.Int64
	for i := range 8 {
		name := fmt.Sprint("ward", i)
		pgtest.Exec(t, server.URL(), "CREATE DATABASE "+name+" TEMPLATE "+model)
		c := newCluster(t, pgtest.SocketURL(dir, name))
		w := &ward{cluster: c, well: c.nodeFor(c.url, time.Minute)}
		wg.Go(func() {
			for name := range jobs {
				cases.Add(int64(w.tryMethod(t, dir, name)))
			}
		})
	}
	for _, name := range slices.Sorted(maps.Keys(methods)) {
		jobs <- name
	}
	close(jobs)
	wg.Wait()
	tally.Count(t, "every method of the store ends within its deadline on a database that is ill, and works again after it", int(cases.Load()))
}

var illDeadlines = postgres.Deadlines{Look: slower * 400 * time.Millisecond, Write: slower * 500 * time.Millisecond, Walk: slower * 500 * time.Millisecond}

// faults are what an execution meets: all of them if it is a statement by itself or
// a commit; else one, another each time, for nothing of a transaction is done before
// its commit.
func faults(nth int, text string, whole bool) (list []ill.Fault) {
	for i := range 8 {
		if whole || i == nth%8 {
			list = append(list, ill.Fault{At: ill.Moment(i / 4), Do: ill.Act((i + i/4) % 4), For: 10 * time.Millisecond})
		}
	}
	return list
}

// tryMethod tries all faults on one method and returns how many there were.
func (w *ward) tryMethod(t *testing.T, dir, name string) (cases int) {
	wire := ill.New(t, dir)
	var err error
	for range 20 { // its deadlines are short for a slow machine
		w.s, err = postgres.Open(t.Context(), postgres.Options{URL: wire.URL(pgtest.Name(w.url)), Lease: time.Minute, Deadlines: illDeadlines, Compare: never, Log: logger()})
		if err == nil {
			break
		}
	}
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return 0
	}
	s := w.s
	defer func() {
		if err := s.Close(); err != nil {
			t.Errorf("%s: closing: %v", name, err)
		}
	}()
	if err := w.works(methods[name](w), true); err != nil { // prepares the statements
		t.Errorf("%s on a database that is well: %v", name, err)
		return 0
	}
	stop := wire.Record("posthorn")
	if err := w.works(methods[name](w), true); err != nil {
		t.Errorf("%s on a database that is well, again: %v", name, err)
		return 0
	}
	executions := slices.DeleteFunc(stop(), func(e ill.Execution) bool {
		return strings.HasPrefix(e.Purpose, "posthorn listen") || strings.HasPrefix(e.Purpose, "posthorn lease")
	})
	commits := slices.ContainsFunc(executions, func(e ill.Execution) bool { return e.Text == "COMMIT" })
	seen := map[string]int{}
	for i, e := range executions {
		purpose := strings.Join(strings.Fields(e.Purpose)[:2], " ")
		seen[purpose+e.Text]++
		for _, f := range faults(i, e.Text, len(executions) < 4 || e.Text == "COMMIT" || !commits && i == 1) {
			f.Statement, f.Purpose, f.Nth = e.Text, purpose, seen[purpose+e.Text]
			if !w.tryFault(t, wire, name, f) {
				return cases
			}
			cases++
		}
	}
	if cases < 8 {
		t.Errorf("%s was tried with %d faults only", name, cases)
	}
	return cases
}

func (w *ward) tryFault(t *testing.T, wire *ill.Wire, name string, f ill.Fault) bool {
	told := fmt.Sprintf("%s, %s %s execution %d of %.60q on %s", name, [...]string{"dropped", "held", "delayed", "silenced"}[f.Do],
		[...]string{"before", "after"}[f.At], f.Nth, f.Statement, f.Purpose)
	method := methods[name](w)
	strike := wire.Strike(f)
	began := time.Now()
	err := method(t.Context(), w.s)
	took := time.Since(began)
	strike.Disarm()
	// Its deadlines are fractions of a second: this is for slow machines.
	if took > 10*time.Second {
		t.Errorf("%s: it took %v", told, took)
		return false
	}
	if f.Do == ill.Delay && took < illDeadlines.Look/2 && err != nil {
		t.Errorf("%s: a delay of 10 ms: %v", told, err)
	}
	if err != nil && !away(err) {
		t.Errorf("%s: %v", told, err)
	}
	strike.Release()
	if first := err; err != nil {
		if err := w.works(method, errors.Is(err, store.ErrUnsettled)); err != nil {
			t.Errorf("%s: %v; and then, on a database that is well: %v", told, first, err)
			return false
		}
	}
	return w.agrees(t, told)
}

// away reports whether a call failed for want of an answer.
func away(err error) bool {
	return errors.Is(err, store.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded)
}

// works calls a method until it is answered. Where it is not known of a call before
// whether it did its work, it may find it done; else it must do it now.
func (w *ward) works(call call, unknown bool) (err error) {
	for began := time.Now(); time.Since(began) < 20*time.Second; {
		if err = call(w.Context(), w.s); err == nil {
			return nil
		}
		for _, done := range []error{store.ErrNotFound, store.ErrFinal, store.ErrReplaying, store.ErrInFlight, store.ErrExists} {
			if unknown && errors.Is(err, done) {
				return nil
			}
		}
		if !away(err) {
			return err
		}
		unknown = unknown || errors.Is(err, store.ErrUnsettled)
		<-time.After(10 * time.Millisecond)
	}
	return err
}

// agrees waits until no row belongs to the node that it does not hold.
func (w *ward) agrees(t *testing.T, told string) bool {
	t.Helper()
	var lost []posthorn.ID
	for began := time.Now(); time.Since(began) < 20*time.Second; {
		var err error
		if lost, err = w.s.Unheld(t.Context()); err == nil && len(lost) == 0 {
			return true
		}
		<-time.After(10 * time.Millisecond)
	}
	t.Errorf("%s: %v belong to the node, which does not hold them", told, lost)
	return false
}
