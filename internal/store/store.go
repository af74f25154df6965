// Package store is the contract between the service and what keeps its rows:
// the embedded SQLite store and, later, PostgreSQL. Package storetest holds
// every implementation to it.
//
// One row in one store is the only truth about a delivery. All methods may be
// called concurrently. A method that changes something returns when the change
// is durable (fsync), or with an error and nothing changed. Times enter as
// parameters, never from the database's clock. Text that holds a NUL byte is
// refused. Missing rows are [ErrNotFound]; another tenant's rows are missing.
package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/posthorn/posthorn"
)

// Errors that callers tell apart with errors.Is.
var (
	ErrNotFound = errors.New("store: not found")
	// ErrExists: a name that must be unique is taken.
	ErrExists = errors.New("store: already exists")
	// ErrVersion: the row's version is not the one the caller expects (If-Match).
	ErrVersion = errors.New("store: version mismatch")
	// ErrEndpointLimit: the tenant has as many endpoints as it may.
	ErrEndpointLimit = errors.New("store: too many endpoints")
	// ErrSameURL: the tenant has as many endpoints with this url as it may.
	ErrSameURL = errors.New("store: too many endpoints with the same url")
	// ErrStale: the tenant's endpoints changed since they were matched; match
	// again and repeat.
	ErrStale = errors.New("store: endpoints changed")
	// ErrOverloaded: more is waiting to be written than the store can take soon.
	ErrOverloaded = errors.New("store: overloaded")
	// ErrFull: the disk is full or below its reserve.
	ErrFull = errors.New("store: disk full")
	// ErrUnavailable: the store cannot be written or reached now.
	ErrUnavailable = errors.New("store: unavailable")
	// ErrUnsettled is an ErrUnavailable: the commit was sent, and it is not known in
	// time whether it took place. The store finds out, and looks after what became
	// of it: what it took over or gave up is nobody else's concern.
	ErrUnsettled = fmt.Errorf("%w: it is being found out whether a commit took place", ErrUnavailable)
	ErrClosed    = errors.New("store: closed")
	// ErrOnceReused: the Idempotency-Key was used for another request.
	ErrOnceReused = errors.New("store: idempotency key reused with other content")
)

// ErrRepeated is returned by a method whose Once was seen before with the same
// content: nothing was done now, and Answer is what was answered then.
type ErrRepeated struct{ Answer []byte }

func (*ErrRepeated) Error() string { return "store: repeated request" }

// EventConflict is returned by Publish when an event's Key was used before with
// other content. Index is the event's place in the publication.
type EventConflict struct{ Index int }

func (*EventConflict) Error() string { return "store: event id used before with other content" }

// Store is the whole contract. Consumers declare the part that they need.
type Store interface {
	Tenants
	Tokens
	Endpoints
	Sealing
	Publisher
	Queue
	Redelivery
	Replays
	Log
	Streamer
	Eraser
	Exports
	Auditing
	Statistics
	Walker
	Keeper

	// Watch registers fn to be told of every committed change of tenants,
	// tokens, endpoints and the sending switch. For a change made through this
	// Store it is called before the method that made it returns; for one made by
	// another process or node, within a second, perhaps as NoticeAll. fn must be
	// quick, must not call a changing method, and is never called concurrently.
	// Watch is called before the first change.
	Watch(fn func(Notice))
	// WatchSettling is Watch for one who may need a moment more: what fn returns,
	// unless it is nil, is called by the method that made the change, in its caller's
	// goroutine and without any lock, before it returns. It may wait, for less than a
	// second. For changes that nobody waits for it is not called.
	WatchSettling(fn func(Notice) (settled func()))
	// Ping reports whether the store can be written to now.
	Ping(context.Context) error
	// Close waits for what is being written and closes the store. Later calls
	// return ErrClosed.
	Close() error
}

// Notice says what changed, so that caches let go of it.
type Notice struct {
	Kind     NoticeKind
	Tenant   int64       // NoticeTenant, NoticeEndpoint, NoticeCanceled, NoticeErased
	Endpoint int64       // NoticeEndpoint, NoticeCanceled, NoticeParked
	Event    posthorn.ID // NoticeErased
}

// NoticeKind is what changed. It is sent between nodes: its numbers stay. A node hears a kind that it does not know as NoticeAll:
// a later version whose kind asks for more of engines, as NoticeCanceled and
// NoticeErased do, tells one of those as well.
type NoticeKind uint8

const (
	NoticeAll      NoticeKind = iota // anything may have changed
	NoticeTenant                     // created, suspended, resumed, deleted
	NoticeToken                      // a token was deleted
	NoticeEndpoint                   // created, changed, paused, resumed, deleted, secrets, settings
	NoticeSending                    // the sending switch
	NoticeCanceled                   // deliveries of the endpoint (0: of any), which may be in an engine's memory
	NoticeErased                     // an event's payload was erased
	// NoticeParked: an endpoint has parked deliveries that its lane may not know
	// of, or not know to be due. Nothing that is remembered became untrue.
	NoticeParked
	// NoticeDue: deliveries are due that nobody was told of. Nothing that is
	// remembered became untrue.
	NoticeDue
	noticeEnd
)

// NoticeOf is the kind of a number that another node told.
func NoticeOf(number int) NoticeKind {
	if number < 0 || number >= int(noticeEnd) {
		return NoticeAll
	}
	return NoticeKind(number)
}

// Change accompanies everything that is audited.
type Change struct {
	// Actor is who did it: "token:tok_…", "jwt:SUBJECT@ISSUER", "cli", "posthorn".
	Actor string
	At    time.Time
	// Once makes the change idempotent by an Idempotency-Key; nil for without.
	Once *Once
}

// Once remembers a request and its answer in the commit of what it did.
type Once struct {
	Tenant  int64 // 0 for the platform
	Route   string
	Key     string
	Hash    [32]byte // of the request's content
	Answer  []byte   // what to answer when the request comes again; sealed by the caller if secret
	Expires time.Time
}

// Tenants keeps the platform's partners.
type Tenants interface {
	// CreateTenant returns ErrExists for a taken name.
	CreateTenant(ctx context.Context, c Change, name string) (posthorn.Tenant, error)
	TenantByName(ctx context.Context, name string) (posthorn.Tenant, error)
	TenantByID(ctx context.Context, id int64) (posthorn.Tenant, error)
	// Tenants lists by id, newest first: those with an id below before (0 for all).
	Tenants(ctx context.Context, before int64, limit int) ([]posthorn.Tenant, error)
	// SuspendTenant suspends or resumes; one that is already so is not changed.
	SuspendTenant(ctx context.Context, c Change, id int64, suspend bool) (posthorn.Tenant, error)
	// DeleteTenant makes the tenant, its tokens and endpoints unknown at once;
	// Sweep cancels what waits and erases the rest. The name is free again.
	DeleteTenant(ctx context.Context, c Change, id int64) error

	// Sending reports whether attempts are made at all; SetSending is the brake
	// of the whole installation.
	Sending(ctx context.Context) (bool, error)
	SetSending(ctx context.Context, c Change, on bool) error
}

// Token is an opaque access token, without its secret text.
type Token struct {
	ID     int64
	Ref    string // tok_ + ULID
	Tenant int64  // 0 for the platform
	Name   string
	Hash   [32]byte // SHA-256 of the text
	Scopes []string
	// ExpiresAt is zero for never; LastUsedAt zero for never, and up to a minute
	// old.
	CreatedAt, ExpiresAt, LastUsedAt time.Time
}

// Tokens keeps access tokens.
type Tokens interface {
	CreateToken(ctx context.Context, c Change, t Token) (Token, error)
	// TokenByHash returns ErrNotFound for an unknown or deleted token and for one
	// of a deleted tenant; an expired one is returned.
	TokenByHash(ctx context.Context, hash [32]byte) (Token, error)
	// Tokens lists by id, newest first, of one tenant or, with tenant -1, all.
	Tokens(ctx context.Context, tenant, before int64, limit int) ([]Token, error)
	// DeleteToken with tenant -1 finds any token.
	DeleteToken(ctx context.Context, c Change, tenant int64, ref string) error
	// TouchTokens records uses; not audited, durable with the next commit.
	TouchTokens(ctx context.Context, used map[int64]time.Time) error
}

// Sealed is an encrypted secret: see package secretbox.
type Sealed struct {
	ID        int64
	KeyID     string // which of the operator's keys sealed it
	Box       []byte
	CreatedAt time.Time
	// ExpiresAt is zero for the current secret, else the end of its overlap.
	ExpiresAt time.Time
}

// SealedHeader is the encrypted value of an extra request header.
type SealedHeader struct {
	Name string
	Sealed
}

// EndpointSet is all living endpoints of a tenant, paused ones too, as one
// version saw them.
type EndpointSet struct {
	Version   int64
	Endpoints []posthorn.Endpoint
	// Shared: several processes may serve this store ([posthorn.Settings.OwnedLane]).
	Shared bool
}

// Target is all that is needed to send to an endpoint.
type Target struct {
	Endpoint posthorn.Endpoint
	// TenantSuspended: nothing is sent to a suspended tenant.
	TenantSuspended bool
	// Secrets are those that sign, current first; some may have expired.
	Secrets []Sealed
	// Headers are the values of Settings.Headers.
	Headers []SealedHeader
	Health  posthorn.Health
	// Parked reports whether the endpoint has parked deliveries.
	Parked bool
	// Owned reports whether all its deliveries come by way of ClaimParked
	// ([posthorn.Settings.OwnedLane]).
	Owned bool
}

// Endpoints keeps endpoints, their secrets and settings.
type Endpoints interface {
	// CreateEndpoint stores e (Ref, Tenant, URL, Description, Events, Status,
	// times) with its first secret; limit bounds the tenant's living endpoints
	// (ErrEndpointLimit), and posthorn.MaxSameURL those that have the same url
	// (ErrSameURL). seal is called with the new internal id: it binds the
	// secret to tenant and endpoint.
	CreateEndpoint(ctx context.Context, c Change, e posthorn.Endpoint, seal func(id int64) (Sealed, error), limit int) (posthorn.Endpoint, error)
	EndpointByRef(ctx context.Context, tenant int64, ref string) (posthorn.Endpoint, error)
	// EndpointsOf lists living endpoints, newest first: all with limit 0, else
	// those created before the one with the ref `before` ("" for the newest).
	EndpointsOf(ctx context.Context, tenant int64, before string, limit int) ([]posthorn.Endpoint, error)
	// UpdateEndpoint applies fn to the row inside the transaction and stores what
	// it leaves; a fn that changes nothing that users see leaves Version and
	// UpdatedAt alone. version 0 means any, else ErrVersion unless it is the
	// row's. An error of fn comes back as it is. A url of another origin deletes
	// the headers of the settings with their values. A url that becomes the same as
	// those of posthorn.MaxSameURL others is ErrSameURL. A change to active resets the
	// five-day rule and the hold. fn may be called more than once. Settings are
	// not its to change: see UpdateSettings.
	UpdateEndpoint(ctx context.Context, c Change, tenant int64, ref string, version int64, fn func(*posthorn.Endpoint) error) (posthorn.Endpoint, error)
	// UpdateSettings is UpdateEndpoint for the settings: version is compared with
	// SettingsVersion, and only that moves on. Publishers match anew. values are
	// those of headers that fn puts or leaves into Settings.Headers, and replace
	// older ones; the value of a name that fn takes out is deleted.
	UpdateSettings(ctx context.Context, c Change, tenant int64, ref string, version int64, fn func(*posthorn.Settings) error, values ...SealedHeader) (posthorn.Endpoint, error)
	// DeleteEndpoint hides the endpoint at once; its open deliveries are shown as
	// canceled and Sweep makes them so.
	DeleteEndpoint(ctx context.Context, c Change, tenant int64, ref string, version int64) error
	// RevealSecrets returns the secrets that sign at c.At, current first, and
	// audits that they were shown.
	RevealSecrets(ctx context.Context, c Change, tenant int64, ref string) (posthorn.Endpoint, []Sealed, error)
	// ChangeSecrets calls fn in the transaction with the secrets that sign at
	// c.At, current first, and keeps those that it returns, current first: one
	// with ID 0 is new, others may get another ExpiresAt, and what is left out is
	// deleted. fn may set c.Once.Answer, and may be called more than once; its
	// error comes back as it is. Attempts that begin after the answer sign with
	// the new ones, on other nodes within a second.
	ChangeSecrets(ctx context.Context, c Change, tenant int64, ref string, fn func(e posthorn.Endpoint, valid []Sealed) ([]Sealed, error)) error
	// EndpointSet is for matching; it may come from memory.
	EndpointSet(ctx context.Context, tenant int64) (EndpointSet, error)
	// Target returns a deleted endpoint too, with DeletedAt set, as long as it
	// has rows.
	Target(ctx context.Context, endpoint int64) (Target, error)
	// EndpointHealth returns the health and the count of open deliveries (at most
	// limit are counted) and the earliest time of a waiting one (zero for none).
	EndpointHealth(ctx context.Context, endpoint int64, limit int) (h posthorn.Health, waiting int, next time.Time, err error)
	// WarningsDue lists living, active endpoints that began to fail before since
	// and whose owner was not yet told of the coming pause, at most limit.
	WarningsDue(ctx context.Context, since time.Time, limit int) ([]int64, error)
	// LineHead returns the delivery that holds the line of an ordered endpoint, as
	// it failed and is not in a final state, and when it is attempted next; 0 for
	// none, and while it is being attempted.
	LineHead(ctx context.Context, endpoint int64) (head posthorn.ID, next time.Time, err error)
	// MarkWarned records that the owner is to be told of the coming pause, and the
	// [Turn] that tells it, in one commit. It reports false when that was done
	// before, and when the warning is not due (any more).
	MarkWarned(ctx context.Context, endpoint int64, at time.Time) (bool, error)
	// Turns lists the turning points of which nobody was told yet, oldest first, at
	// most limit.
	Turns(ctx context.Context, limit int) ([]Turn, error)
	// ForgetTurn is called when the owner was told. Unknown ones are left alone.
	ForgetTurn(ctx context.Context, id int64) error
}

// Turn is a turning point of an endpoint of which its owner is to be told. It is
// written in the commit of what brought it about (a result, [Endpoints].MarkWarned),
// so that no crash forgets it, and stays until ForgetTurn.
type Turn struct {
	ID               int64
	Type             string // posthorn.TypeEndpointFailing, …Paused, …Recovered
	Tenant, Endpoint int64
	Ref, URL         string // of the endpoint, as it was then
	At               time.Time
	Reason           posthorn.PausedReason // of a pause
	// FailingSince, Failures and LastError are those of the period that it is
	// about, see [posthorn.Health].
	FailingSince time.Time
	Failures     int
	LastError    string
}

// TurnOf returns the turning point that an attempt was, before and after being
// the endpoint's health around it and paused why it paused the endpoint. It
// reports false for none: nobody is told of what Posthorn's own events meet, nor of
// a recovery of whose failing nobody was told.
func TurnOf(before, after posthorn.Health, paused posthorn.PausedReason, succeeded bool) (t Turn, ok bool) {
	switch {
	case paused != "" && after.LastError != "":
		return Turn{Type: posthorn.TypeEndpointPaused, Reason: paused, FailingSince: after.FailingSince, Failures: after.Failures, LastError: after.LastError}, true
	case succeeded && !before.WarnedAt.IsZero():
		return Turn{Type: posthorn.TypeEndpointRecovered, FailingSince: before.FailingSince, Failures: before.Failures, LastError: before.LastError}, true
	}
	return Turn{}, false
}

// Box is something sealed with the operator's keys: an endpoint's secret or a
// remembered answer. The zero Box stands before all others.
type Box struct {
	Kind BoxKind
	// Tenant and Endpoint are what it is bound to; Endpoint is 0 for an answer.
	Tenant, Endpoint int64
	// KeyID and Sealed are an endpoint's [Sealed]; an answer is kept as it was
	// given in [Once], which holds its key's id if it is sealed at all.
	KeyID  string
	Sealed []byte

	// Row and Key are its place in the store.
	Row int64
	Key string
}

// BoxKind says what a Box holds.
type BoxKind uint8

const (
	BoxSecret BoxKind = iota + 1 // a secret that signs
	BoxHeader                    // the value of an endpoint's header
	BoxAnswer                    // the answer to an Idempotency-Key
)

// Resealed is a box and what takes its place.
type Resealed struct {
	Box
	NewKeyID  string // not for answers
	NewSealed []byte
}

// Sealing lets the operator change the keys: it lists all that is sealed, and
// replaces it.
type Sealing interface {
	// NoteKeys records which keys the serving process has, by id and with a
	// fingerprint that shows when two have the same id; what was noted before is
	// forgotten.
	NoteKeys(ctx context.Context, keys map[string]int64) error
	// NotedKeys returns what was noted last, empty for nothing.
	NotedKeys(ctx context.Context) (map[string]int64, error)
	// Boxes lists what is sealed behind the box after, in an order that stays as it
	// is; fewer than limit at the end only.
	Boxes(ctx context.Context, after Box, limit int) ([]Box, error)
	// Reseal replaces boxes that still are as they were listed, leaves others
	// alone, and returns how many it replaced. What is sealed does not change for
	// users, so nobody is told.
	Reseal(ctx context.Context, c Change, boxes []Resealed) (int, error)
}

// Publication is what one request publishes: all of it or nothing.
type Publication struct {
	Tenant int64
	// SetVersion is the version of the EndpointSet that was matched; ErrStale if
	// it is no more.
	SetVersion int64
	// Match, when it is not nil, is called within the commit instead of ErrStale, with
	// the endpoints as they are then and stay until it ends. It sets the Targets of
	// Events anew; its error refuses the publication. Others wait for it, so it must be
	// quick. It is called once for each try of the commit, and not any more when Publish
	// has returned.
	Match  func(EndpointSet) error
	At     time.Time // acceptance
	Events []NewEvent
	// BacklogLimit bounds the tenant's open deliveries; what goes beyond is
	// stored as expired with ReasonBacklogFull.
	BacklogLimit int
	// Once is the request's Idempotency-Key or nil; its Answer is taken from
	// Answer, called in the transaction.
	Once   *Once
	Answer func([]Accepted) []byte
	// Outbox are rows of the store's [Outbox] that leave it in the same commit;
	// ErrTaken, and nothing is published, if one of them is not there any more.
	Outbox []int64
}

// NewEvent is one event of a publication.
type NewEvent struct {
	Key        string   // the publisher's id or ""
	Hash       [32]byte // of type, data and deliver_at; compared when Key comes again
	Type       string
	Kind       posthorn.EventKind
	OccurredAt time.Time
	DeliverAt  time.Time // zero for now
	// Body is rendered by posthorn.AppendBody; when Key is empty the store fills
	// the hole with the id that it gives out. The store keeps no reference.
	Body                      []byte
	Source, Subject, SourceID string
	// Targets are the endpoints that matched, in the order in which their
	// deliveries get ids.
	Targets []PublishTarget
}

// PublishTarget is one endpoint that an event goes to.
type PublishTarget struct {
	Endpoint int64
	// Parked stores the delivery behind its lane's backlog instead of handing it
	// over.
	Parked bool
	// Note is Delivery.Note; "" mostly.
	Note string
	// Owned tells that the endpoint has an owned lane
	// ([posthorn.Settings.OwnedLane]), Ordered that it keeps publish order. The
	// publisher parks what is for an owned lane.
	Owned, Ordered bool
}

// Accepted is what became of one event of a publication.
type Accepted struct {
	ID         posthorn.ID
	OccurredAt time.Time
	Deliveries int
	// Repeated tells that the Key was known with the same content: ID, OccurredAt
	// and Deliveries are the first event's, and nothing new was stored.
	Repeated bool
	// Open is how many deliveries, the first ones, were stored open; the rest
	// expired because the backlog was full. Delivery i has the id ID+1+i.
	Open int
	// Gen is that of the [Hold] of those that this process owns.
	Gen uint64
}

// Publisher accepts events.
type Publisher interface {
	// Publish stores events, deliveries and Once in one commit shared with other
	// callers. Ids grow in commit order. A delivery of a Target that is not
	// parked is stored owned by this process when it is due, else waiting.
	// Events whose Key repeats within the publication count once (Repeated) when
	// their Hash is the same, else EventConflict.
	// Errors: ErrStale, *EventConflict, *ErrRepeated, ErrOnceReused,
	// ErrOverloaded, ErrFull, ErrUnavailable.
	Publish(ctx context.Context, p Publication) ([]Accepted, error)
}

// ClaimedBody bounds the bodies that claims bring.
const ClaimedBody = 4096

// Hold names one time that this process took a delivery over: the delivery, and
// the generation that the store gave to it. What a process says of a delivery that
// it holds names the hold, so that it cannot be taken for a later one by a late
// answer or a repeated statement. Gen is 0 where no other process shares the store;
// elsewhere 0 stands for whichever hold there is.
type Hold struct {
	ID  posthorn.ID
	Gen uint64
}

// Work is an open delivery that this process owns.
type Work struct {
	ID       posthorn.ID
	Gen      uint64 // of its [Hold]
	Event    posthorn.ID
	EventKey string // "" when the event's id is Posthorn's own
	Type     string
	Tenant   int64
	Endpoint int64
	Kind     posthorn.EventKind
	Progress posthorn.Progress
	// Replay tells that a replay opened it: new deliveries go first.
	Replay bool
	// Aside: it stands outside the line of an ordered endpoint. It is delayed
	// (deliver_at), a test, late, replayed, or opened for one attempt by hand.
	Aside bool
	// AcceptedAt is when the event was accepted; for the lag metric.
	AcceptedAt time.Time
	// Size is the body's length. Claims may bring small bodies, at most
	// [ClaimedBody] long; a nil one is read when it is needed: see Payload.
	Size int
	Body []byte
}

// Hold is what the delivery is given back by.
func (w *Work) Hold() Hold { return Hold{w.ID, w.Gen} }

// EventRef is the webhook-id.
func (w *Work) EventRef() string {
	if w.EventKey != "" {
		return w.EventKey
	}
	return w.Event.Text(posthorn.EventPrefix)
}

// Result is what an attempt did to a delivery.
type Result struct {
	ID       posthorn.ID
	Endpoint int64
	Tenant   int64
	// Gen is that of the [Hold] that the attempt was made by.
	Gen uint64
	// Tries is Progress.Tries when the attempt began: the guard.
	Tries   int
	Attempt posthorn.Attempt
	// EndedAt is when the attempt ended; Random places the next wait within its
	// jitter. Policy decides: the store calls Policy.Step on the row as it is at
	// the commit, so that a cancel or a pause in between is respected.
	EndedAt time.Time
	Random  float64
	Policy  posthorn.Policy
	// Test attempts (EventTest) change neither health nor statistics.
	Kind posthorn.EventKind
}

// Recorded is what the store made of a Result.
type Recorded struct {
	// Lost: the row was not at Tries any more, is another process's, or is gone with its
	// tenant or its event's time. Nothing was written. A row that was ended meanwhile is
	// none of that: its result is written, and a success is its end.
	Lost bool
	// Parked: the delivery stands in the line of an ordered endpoint, where it
	// waits for its NextAt and holds those behind it.
	Parked   bool
	Progress posthorn.Progress
	Health   posthorn.Health
	// Paused is set when this result paused the endpoint.
	Paused posthorn.PausedReason
	// Recovered is set when this success ended a failing period.
	Recovered bool
}

// Queue is the engine's side of the open deliveries. An open delivery is owned
// (in this process's memory), waiting (has a time) or parked (behind its lane's
// backlog). The line of an ordered endpoint is what of it is parked and not
// [Work.Aside]: also after a failed attempt, and after a crash.
//
// What the engine holds ([Hold]) ends once: by a Record that was written or Lost, by
// a Park, or by Forget; of an engine that has stopped, by the store's Close.
type Queue interface {
	// ClaimDue takes over waiting deliveries with NextAt <= now, earliest first,
	// at most limit; a store may bring fewer at a time. next is the time of the
	// earliest one left (zero for none): one that is not after now says to ask again.
	ClaimDue(ctx context.Context, now time.Time, limit int) (w []Work, next time.Time, err error)
	// ClaimParked takes over parked deliveries of an endpoint, oldest first. more
	// reports whether others are left. Those that failed before and whose time has
	// not come become waiting, but in an ordered endpoint's line: there the first
	// one holds the rest. next is the earliest time of either, zero for none. With
	// more and without work, asking again before next is useless, and without next
	// before a notice.
	// Of a paused endpoint it takes over what was asked for by hand ([Work].Progress
	// is Manual; a test is) and no other; of an ordered one's line the head alone, if
	// it was. Of a suspended tenant's endpoint, a deleted one and one whose status is
	// of a newer version it takes nothing.
	// Where several processes share the store, an owned lane is leased to one of
	// them: it is this one from the first claim on, and the others get nothing.
	ClaimParked(ctx context.Context, endpoint int64, limit int) (w []Work, more bool, next time.Time, err error)
	// ParkedEndpoints lists endpoints that live, of tenants that are not suspended,
	// and have parked deliveries, with an id above after, at most limit; paused ones
	// only when some of these were asked for by hand.
	ParkedEndpoints(ctx context.Context, after int64, limit int) ([]int64, error)
	// MayAttempt waits until this process may attempt what it holds, or ctx ends,
	// and reports whether it may: no attempt begins otherwise. When it says no
	// and ctx lives, the delivery is not this process's any more: nothing is
	// attempted, recorded or given back; it is forgotten. With a ctx that has ended it
	// tells without waiting whether it may now.
	MayAttempt(ctx context.Context, h Hold) bool
	// Park gives owned deliveries back to the backlog of their endpoint, in a
	// commit of its own; rows no longer owned and open are left alone. With an error
	// nothing was given back.
	Park(ctx context.Context, holds []Hold) error
	// Forget lets go of deliveries that the store settles by itself: those of
	// deleted endpoints and of erased events, and those that MayAttempt said no to.
	// Nothing is written; it neither waits nor calls anybody.
	Forget(holds ...Hold)
	// Payload returns an event's body.
	Payload(ctx context.Context, event posthorn.ID) ([]byte, error)
	// Record queues a result for the next commit and calls done, from the
	// store's goroutine, when it is durable or lost, or with an error when it
	// could not be written (the row is then as it was; the caller tries again or
	// lets go). It blocks only while the queue is full. done must be quick.
	Record(r Result, done func(Recorded, error))
}

// Page is the part of a list that is asked for.
type Page struct {
	// Before is the id that the page begins below; 0 for the newest.
	Before posthorn.ID
	Limit  int
	// Snippet is how many bytes of the body of an attempt's answer come along at
	// most, and BodyNote says that there was more; 0 for what is kept.
	Snippet int
	// Weight ends a page of deliveries earlier, once what it holds weighs as many
	// bytes ([WeightOf]); 0 for no such bound. It has one delivery at least.
	Weight int64
}

// EventFilter selects events. Zero fields select all.
type EventFilter struct {
	Tenant       int64
	Type         posthorn.Pattern
	Since, Until time.Time // acceptance: since <= t < until
	// Source, Subject and SourceID are the CloudEvents attributes, whole. No index
	// helps them: pages may be short or empty.
	Source, Subject, SourceID string
}

// DeliveryFilter selects deliveries. Zero fields select all.
type DeliveryFilter struct {
	Tenant       int64
	Endpoint     int64
	Event        posthorn.ID
	Type         posthorn.Pattern
	State        posthorn.ShownState
	Since, Until time.Time // acceptance of the event: since <= t < until
}

// Log reads what happened. Pages are newest first and read a bounded number of
// rows: one may be short or empty and still have a next. next is 0 at the end.
type Log interface {
	// Events returns events without their bodies.
	Events(ctx context.Context, f EventFilter, p Page) (events []posthorn.Event, next posthorn.ID, err error)
	// EventByRef finds an event by the id that users see, with its body.
	EventByRef(ctx context.Context, tenant int64, ref string) (posthorn.Event, error)
	// Deliveries returns deliveries with their attempts. Late deliveries of an
	// event stand where their id puts them.
	Deliveries(ctx context.Context, f DeliveryFilter, p Page) (d []posthorn.Delivery, next posthorn.ID, err error)
	DeliveryByID(ctx context.Context, tenant int64, id posthorn.ID) (posthorn.Delivery, error)
	// FormerEndpoint finds an endpoint by its ref as [Endpoints.EndpointByRef]
	// does, a deleted one too as long as it has rows.
	FormerEndpoint(ctx context.Context, tenant int64, ref string) (posthorn.Endpoint, error)
	// LookupOnce returns the answer stored for an Idempotency-Key: *ErrRepeated,
	// ErrOnceReused, or nil when the key is free.
	LookupOnce(ctx context.Context, o Once, now time.Time) error
}

// ExpiredShown is how long after the retention an event is still kept, so that
// users can see that its open deliveries expired.
const ExpiredShown = time.Hour

// Swept counts what one Sweep did.
type Swept struct {
	Canceled, Expired, Events, Deliveries, Keys, Audit int
	// Payloads and Logs are those that were erased before their event and delivery.
	Payloads, Logs int
	// Refused are refused rows of the outbox that were dropped beyond what is kept.
	Refused int
	More    bool // call again soon
}

// Counts are figures for the metrics; cheap to take.
type Counts struct {
	Open   int       // pending deliveries, all tenants
	Oldest time.Time // when the oldest of them was made; zero for none
}

// Upkeep is how what one process does for all now and then stands.
type Upkeep struct {
	Nodes int           // that serve the store, or were not stopped
	Swept time.Duration // since the last Sweep of any process
	Ahead time.Duration // for how long from now there are tables for what is published; below 0: there is none now
}

// How far behind the upkeep may be until somebody should look.
const (
	SweptLate  = 5 * time.Minute
	AheadShort = 3 * 24 * time.Hour
)

// Tended is a store that several processes keep, each of which may wait in vain for
// another one to do it.
type Tended interface {
	Upkeep(ctx context.Context) (Upkeep, error)
}

// Keeper does the housekeeping.
type Keeper interface {
	// Sweep does one bounded slice of the waiting work: cancels open deliveries
	// of deleted endpoints and tenants, settles as expired what outlived its
	// event, deletes what is older than the retention, oldest first, with its
	// bytes overwritten (not on PostgreSQL, see its DESIGN.md), and drops expired
	// secrets and idempotency keys, and what of the audit is older than its own
	// retention.
	Sweep(ctx context.Context, now time.Time, r Retention) (Swept, error)
	// ReadBack has deliveries that wait for a retry since an attempt which lies ahead
	// of now wait no longer than the policy says: a clock was ahead and was set right.
	// It returns how many waited too long. Done again it changes nothing. Where no
	// endpoint was attempted ahead of now it reads nothing else.
	ReadBack(ctx context.Context, now time.Time, p posthorn.Policy) (int, error)
	Counts(ctx context.Context) (Counts, error)
	// Outlook counts what would be sent if sending began. It may take a second
	// with a large backlog.
	Outlook(ctx context.Context, now time.Time) (Outlook, error)
}
