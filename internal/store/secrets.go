package store

import (
	"errors"
	"slices"
	"time"
)

// Valid are the secrets that sign at a time, in their order.
func Valid(secrets []Sealed, at time.Time) []Sealed {
	return slices.DeleteFunc(slices.Clone(secrets), func(s Sealed) bool {
		return !s.ExpiresAt.IsZero() && !at.Before(s.ExpiresAt)
	})
}

// SecretsEdit is how the secrets of an endpoint become others.
type SecretsEdit struct {
	Insert []Sealed
	Expire []Sealed // by ID; ExpiresAt is new
	Delete []int64
}

// EditSecrets compares all secrets that are stored with those that are to stay.
// There must be one that is current, the first, and it must be the only one.
func EditSecrets(stored, want []Sealed) (e SecretsEdit, err error) {
	for i, s := range want {
		if s.ExpiresAt.IsZero() != (i == 0) {
			return e, errors.New("store: the first secret, and it alone, must be current")
		}
		at := slices.IndexFunc(stored, func(old Sealed) bool { return old.ID == s.ID })
		switch {
		case s.ID == 0:
			e.Insert = append(e.Insert, s)
		case at < 0:
			return e, errors.New("store: a secret that is to stay is not stored")
		case !stored[at].ExpiresAt.Equal(s.ExpiresAt):
			e.Expire = append(e.Expire, s)
		}
	}
	if len(want) == 0 {
		return e, errors.New("store: an endpoint must keep a secret")
	}
	for _, old := range stored {
		if !slices.ContainsFunc(want, func(s Sealed) bool { return s.ID == old.ID }) {
			e.Delete = append(e.Delete, old.ID)
		}
	}
	return e, nil
}
