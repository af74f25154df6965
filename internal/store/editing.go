package store

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/posthorn/posthorn"
)

// ErrNUL is returned for text that holds a NUL byte, which not every store can
// keep.
var ErrNUL = errors.New("store: text holds a NUL byte")

// CheckText returns ErrNUL when one of the texts holds a NUL byte.
func CheckText(texts ...string) error {
	for _, s := range texts {
		if strings.IndexByte(s, 0) >= 0 {
			return ErrNUL
		}
	}
	return nil
}

// CheckEndpoint checks all text of an endpoint.
func CheckEndpoint(e *posthorn.Endpoint) error {
	for _, p := range e.Events {
		if err := CheckText(string(p)); err != nil {
			return err
		}
	}
	if err := CheckText(e.Settings.Headers...); err != nil {
		return err
	}
	return CheckText(e.Ref, e.URL, e.Description, string(e.Status), string(e.PausedReason), e.Settings.Filter)
}

// SettleNew fills in what a new endpoint has by rule.
func SettleNew(e *posthorn.Endpoint, at time.Time) {
	e.Version, e.SettingsVersion = 1, 1
	e.DeletedAt = time.Time{}
	if e.CreatedAt.IsZero() {
		e.CreatedAt = at
	}
	if e.UpdatedAt.IsZero() {
		e.UpdatedAt = e.CreatedAt
	}
	e.CreatedAt, e.UpdatedAt = e.CreatedAt.UTC(), e.UpdatedAt.UTC()
	if e.Status == "" {
		e.Status = posthorn.StatusActive
	}
	settlePause(e, at)
}

// settlePause keeps reason and time of a pause in step with the status.
func settlePause(e *posthorn.Endpoint, at time.Time) {
	if e.Status == posthorn.StatusActive {
		e.PausedReason, e.PausedAt = "", time.Time{}
		return
	}
	if e.PausedReason == "" {
		e.PausedReason = posthorn.PausedByUser
	}
	if e.PausedAt.IsZero() {
		e.PausedAt = at
	}
	e.PausedAt = e.PausedAt.UTC()
}

// Relocates reports whether what was done to the endpoint has it send to another url: then
// the tenant must not have too many there. old is nil for a new one.
func Relocates(old, e *posthorn.Endpoint) bool {
	return old == nil || posthorn.ReceiverOf(old.URL) != posthorn.ReceiverOf(e.URL)
}

// Edited is what fn makes of the endpoint, with what fn may not change.
func Edited(old posthorn.Endpoint, at time.Time, fn func(*posthorn.Endpoint) error) (posthorn.Endpoint, error) {
	e := old
	e.Events = slices.Clone(old.Events)
	if err := fn(&e); err != nil {
		return e, err
	}
	e.Settings, e.SettingsVersion = old.Settings, old.SettingsVersion
	if len(old.Settings.Headers) > 0 && !posthorn.SameOrigin(old.URL, e.URL) {
		// What was given to be sent to one server must not be sent to another one
		// (CVE-2022-4342, CVE-2023-2620).
		e.Settings.Headers = nil
		e.SettingsVersion++
	}
	if err := CheckEndpoint(&e); err != nil {
		return e, err
	}
	e.ID, e.Ref, e.Tenant, e.Version = old.ID, old.Ref, old.Tenant, old.Version
	e.CreatedAt, e.UpdatedAt, e.DeletedAt = old.CreatedAt, old.UpdatedAt, old.DeletedAt
	settlePause(&e, at)
	return e, nil
}

// SameToUsers reports whether two states of an endpoint differ in nothing that
// users see of it, settings left out.
func SameToUsers(a, b *posthorn.Endpoint) bool {
	return a.URL == b.URL && a.Description == b.Description && slices.Equal(a.Events, b.Events) &&
		a.Status == b.Status && a.PausedReason == b.PausedReason
}

// Rematches reports whether a publish that matched an endpoint as it was must match
// again: whether anything changed of what decides which events it gets, and how its
// lane takes them. Nil stands for an endpoint that is not there. Everything else is
// read when a delivery is attempted.
func Rematches(was, is *posthorn.Endpoint) bool {
	if was == nil || is == nil {
		return true
	}
	a, b := &was.Settings, &is.Settings
	return !slices.Equal(was.Events, is.Events) || a.Filter != b.Filter || a.Ordered != b.Ordered ||
		a.OwnedLane(false) != b.OwnedLane(false) || a.OwnedLane(true) != b.OwnedLane(true)
}

// EditedSettings is the endpoint with what fn makes of its settings, and whether
// that or the values are a change, which moves SettingsVersion on.
func EditedSettings(old posthorn.Endpoint, fn func(*posthorn.Settings) error, values []SealedHeader) (e posthorn.Endpoint, changed bool, err error) {
	before, err := EncodeSettings(&old.Settings)
	if err != nil {
		return old, false, err
	}
	e = old
	e.Settings.RetrySchedule = slices.Clone(old.Settings.RetrySchedule)
	e.Settings.Headers = slices.Clone(old.Settings.Headers)
	if err := fn(&e.Settings); err != nil {
		return old, false, err
	}
	e.Settings.Unknown = old.Settings.Unknown
	if err := CheckEndpoint(&e); err != nil {
		return old, false, err
	}
	// What is stored is compared, so that no field can be forgotten here.
	after, err := EncodeSettings(&e.Settings)
	for _, v := range values {
		if !slices.Contains(e.Settings.Headers, v.Name) {
			return old, false, errors.New("store: a header has a value but is not in the settings")
		}
	}
	if err != nil || before == after && len(values) == 0 {
		return old, false, err
	}
	e.SettingsVersion++
	return e, true, nil
}
