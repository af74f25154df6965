// Package api is the JSON API under /v2.3/webhooks, its description at
// /openapi.yaml and /docs, and a page of links at /.
//
// Every operation is one declaration ([operation]): its route, who may call it,
// its parameters, body and answers. The router, the checks and the OpenAPI
// document are all made from it, so that they cannot disagree. The document is
// made with huma's schemas; huma's own request handling is not used, for its
// validation names faults by a path of its own and not all at once.
package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/access"
	"github.com/posthorn/posthorn/internal/catalog"
	"github.com/posthorn/posthorn/internal/publish"
	"github.com/posthorn/posthorn/internal/secretbox"
	"github.com/posthorn/posthorn/internal/share"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/web"
)

// Base is the path under which all routes lie.
const Base = "/v2.3/webhooks"

// SecretKind binds the boxes of endpoint secrets: what seals and what opens must
// name the same. What is sealed is the key itself, not its text.
const SecretKind = "secret"

// AnswerKind binds the boxes of remembered answers.
const AnswerKind = "answer"

// Store is what the API needs of the store; package store says what the methods
// do.
type Store interface {
	CreateTenant(ctx context.Context, c store.Change, name string) (posthorn.Tenant, error)
	TenantByName(ctx context.Context, name string) (posthorn.Tenant, error)
	TenantByID(ctx context.Context, id int64) (posthorn.Tenant, error)
	Tenants(ctx context.Context, before int64, limit int) ([]posthorn.Tenant, error)
	SuspendTenant(ctx context.Context, c store.Change, id int64, suspend bool) (posthorn.Tenant, error)
	DeleteTenant(ctx context.Context, c store.Change, id int64) error
	SetSending(ctx context.Context, c store.Change, on bool) error

	CreateToken(ctx context.Context, c store.Change, t store.Token) (store.Token, error)
	Tokens(ctx context.Context, tenant, before int64, limit int) ([]store.Token, error)
	DeleteToken(ctx context.Context, c store.Change, tenant int64, ref string) error

	CreateEndpoint(ctx context.Context, c store.Change, e posthorn.Endpoint, seal func(id int64) (store.Sealed, error), limit int) (posthorn.Endpoint, error)
	EndpointByRef(ctx context.Context, tenant int64, ref string) (posthorn.Endpoint, error)
	EndpointsOf(ctx context.Context, tenant int64, before string, limit int) ([]posthorn.Endpoint, error)
	UpdateEndpoint(ctx context.Context, c store.Change, tenant int64, ref string, version int64, fn func(*posthorn.Endpoint) error) (posthorn.Endpoint, error)
	DeleteEndpoint(ctx context.Context, c store.Change, tenant int64, ref string, version int64) error
	UpdateSettings(ctx context.Context, c store.Change, tenant int64, ref string, version int64, fn func(*posthorn.Settings) error, values ...store.SealedHeader) (posthorn.Endpoint, error)
	RevealSecrets(ctx context.Context, c store.Change, tenant int64, ref string) (posthorn.Endpoint, []store.Sealed, error)
	ChangeSecrets(ctx context.Context, c store.Change, tenant int64, ref string, fn func(e posthorn.Endpoint, valid []store.Sealed) ([]store.Sealed, error)) error
	EndpointHealth(ctx context.Context, endpoint int64, limit int) (h posthorn.Health, waiting int, next time.Time, err error)
	LineHead(ctx context.Context, endpoint int64) (head posthorn.ID, next time.Time, err error)

	Events(ctx context.Context, f store.EventFilter, p store.Page) ([]posthorn.Event, posthorn.ID, error)
	EventByRef(ctx context.Context, tenant int64, ref string) (posthorn.Event, error)
	Deliveries(ctx context.Context, f store.DeliveryFilter, p store.Page) ([]posthorn.Delivery, posthorn.ID, error)
	DeliveryByID(ctx context.Context, tenant int64, id posthorn.ID) (posthorn.Delivery, error)
	Note(ctx context.Context, c store.Change, tenant int64, a store.Audit) error
	FormerEndpoint(ctx context.Context, tenant int64, ref string) (posthorn.Endpoint, error)
	ErasePayload(ctx context.Context, c store.Change, tenant int64, ref string) (store.Erased, error)
	Deletions(ctx context.Context, before int64, limit int) ([]store.Deletion, error)
	CreateExport(ctx context.Context, c store.Change, e store.Export) error
	ExportByRef(ctx context.Context, tenant int64, ref string, now time.Time) (store.Export, error)
	store.Walker
	LookupOnce(ctx context.Context, o store.Once, now time.Time) error
	AuditEntries(ctx context.Context, f store.AuditFilter, before int64, limit int) ([]store.AuditEntry, int64, error)
	Stats(ctx context.Context, f store.StatsFilter) ([]store.Slot, error)

	StreamEnd(ctx context.Context) (store.StreamPlace, error)
	Stream(ctx context.Context, f store.StreamFilter, after store.StreamPlace) (store.StreamPage, error)

	store.Redelivery
	PlanReplay(ctx context.Context, tenant, endpoint int64, sel posthorn.ReplaySelection) (store.ReplayPlan, error)
	CreateReplay(ctx context.Context, c store.Change, r posthorn.Replay, plan store.ReplayPlan, answer func(posthorn.Replay) []byte) (posthorn.Replay, error)
	ReplayByRef(ctx context.Context, tenant int64, ref string) (posthorn.Replay, error)
	Replays(ctx context.Context, tenant, endpoint, before int64, limit int) ([]posthorn.Replay, error)
	SetReplay(ctx context.Context, c store.Change, tenant int64, ref string, state posthorn.ReplayState, answer func(posthorn.Replay) []byte) (posthorn.Replay, error)

	Watch(fn func(store.Notice))
}

// Publisher reads and accepts events; *publish.Service is one. What is parsed
// points into the body, and may be forgotten when Publish returns.
type Publisher interface {
	ParseEvent(body []byte) (publish.Event, error)
	ParseBatch(body []byte) ([]publish.Event, error)
	ParseNDJSON(body []byte) ([]publish.Event, error)
	ParseCloudEvent(body []byte) (publish.Event, error)
	ParseCloudEvents(body []byte) ([]publish.Event, error)
	ParseBinary(headers map[string][]string, body []byte) (publish.Event, error)
	Publish(ctx context.Context, t posthorn.Tenant, events []publish.Event, pointer func(i int) string, once *store.Once, answer func([]publish.Accepted) []byte) ([]publish.Accepted, error)
	Test(ctx context.Context, t posthorn.Tenant, endpoint int64, eventType string, data []byte, once *store.Once, answer func(publish.Tested) []byte) (publish.Tested, error)
	TryFilters(ctx context.Context, tenant int64) (*publish.FilterTurn, error)
	SetFilter(ctx context.Context, tenant int64) (*publish.FilterTurn, error)
	Follow(tenant int64) (wake <-chan struct{}, leave func())
}

// Catalog knows the event types.
type Catalog interface {
	Types() []catalog.Type
	Lookup(name string) (catalog.Type, bool)
	Matches(p posthorn.Pattern) bool
	Suggest(name string) string
}

// Authenticator tells who sent the values of a request's Authorization header.
type Authenticator interface {
	Authenticate(ctx context.Context, authorization []string, remote netip.Addr) (*access.Principal, error)
	// Again is asked while a request is still being answered.
	Again(ctx context.Context, authorization []string) (*access.Principal, error)
}

// LaneView is what the engine knows of an endpoint that the store does not.
type LaneView struct {
	// NextProbe is when a failing endpoint is tried next; HoldUntil is how long
	// it asked to be left alone. Zero for neither.
	NextProbe, HoldUntil time.Time
}

// Outbox is the part of [store.Outbox] that is shown and decided about.
type Outbox interface {
	OutboxRows(ctx context.Context, refused bool, before int64, limit int) ([]store.OutboxRow, error)
	OutboxByID(ctx context.Context, id int64) (store.OutboxRow, error)
	OutboxRetry(ctx context.Context, c store.Change, id int64) error
	OutboxDrop(ctx context.Context, c store.Change, id int64) error
}

// Config holds what the API works with.
type Config struct {
	Store Store
	// Outbox is the store's, nil if it has none: it is shown as empty then.
	Outbox  Outbox
	Publish Publisher
	Catalog Catalog
	Access  Authenticator
	// Keyring seals endpoint secrets, cursors and remembered answers.
	Keyring *secretbox.Keyring
	// CheckURL judges the url of an endpoint without touching the network; its
	// error is shown to the user.
	CheckURL func(raw string) error
	// Health is what the engine knows of an endpoint; nil for nothing.
	Health func(endpoint int64) LaneView
	// Lanes let go of what is sent again; nil when nothing is delivered here.
	Lanes Lanes
	// WakeReplays tells that a replay has something to do; nil for nobody.
	WakeReplays func()
	Now         func() time.Time
	Log         *slog.Logger
	// MaxEndpoints bounds a tenant's endpoints; 0 for 1,000.
	MaxEndpoints int
	// PublicURL begins the URLs in Location and Link headers; empty for paths
	// without a host.
	PublicURL string
	// TrustedProxies may say by X-Forwarded-For where a request came from.
	TrustedProxies []netip.Prefix
	// Retention is how long events are kept; 0 for 30 days.
	Retention time.Duration
	// Stopping is closed when streams are to end; nil for never.
	Stopping <-chan struct{}
	// Version is the product's, for the OpenAPI document.
	Version string
}

// server answers the API's requests.
type server struct {
	Config
	operations []*operation
	running    running
	bodies     *share.Pool
	answers    *share.Pool
	tenants    knownTenants
	streams    places
	exports    places
	rights     rights
	testing    testRates
}

// New returns the handler of everything but health and metrics: the API, its
// description, and problems for all other routes. It watches the store, and is
// called before the store's first change.
func New(c Config) (http.Handler, error) {
	switch {
	case c.Store == nil, c.Publish == nil, c.Catalog == nil, c.Access == nil, c.Keyring == nil, c.CheckURL == nil, c.Now == nil:
		return nil, errors.New("api: the configuration lacks a part")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.MaxEndpoints == 0 {
		c.MaxEndpoints = 1000
	}
	if c.Retention == 0 {
		c.Retention = 30 * 24 * time.Hour
	}
	if c.Version == "" {
		c.Version = posthorn.Version
	}
	c.PublicURL = strings.TrimSuffix(c.PublicURL, "/")
	s := &server{
		Config: c, tenants: knownTenants{source: c.Store.TenantByName},
		bodies: share.NewPool(bodiesInAll, bodiesOfTenant), answers: share.NewPool(answersInAll, answersOfTenant),
		streams: newPlaces("streams", streamsInAll, streamsOfTenant, streamBeat), exports: newPlaces("downloads of exports", exportsInAll, exportsOfTenant, exportRetry),
	}
	c.Store.Watch(s.tenants.notice)
	c.Store.Watch(s.rights.notice)
	s.operations = s.declare()
	mux := new(web.Mux)
	for _, op := range s.operations {
		mux.Handle(op.method+" "+Base+op.path, s.serve(op))
	}
	s.describe(mux)
	return web.Wrap(c.Log, c.Now, mux), nil
}

// declare lists all operations, in the order of the document.
func (s *server) declare() []*operation {
	var all []*operation
	for _, group := range [][]*operation{
		s.endpointOperations(), s.secretOperations(), s.settingsOperations(), s.testOperations(), s.publishOperations(), s.eventOperations(), s.streamOperations(), s.eventTypeOperations(),
		s.deliveryOperations(), s.redeliveryOperations(), {s.cancelPendingOperation()}, s.replayOperations(), s.statsOperations(), s.tenantOperations(), s.tokenOperations(), s.sendingOperations(),
		s.auditOperations(), s.erasureOperations(), s.exportOperations(), s.outboxOperations(),
	} {
		all = append(all, group...)
	}
	return all
}
