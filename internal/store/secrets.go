package store

import (
	"errors"
	"slices"
	"time"

	"github.com/posthorn/posthorn"
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

// AuditedSecret is what the audit shows of a secret.
type AuditedSecret struct {
	Secret    string    `json:"secret"`
	ExpiresAt time.Time `json:"expires_at,omitzero"`
}

// AuditSecrets is all secrets that sign for an [Audit].
func AuditSecrets(secrets []Sealed) any {
	shown := make([]AuditedSecret, len(secrets))
	for i, s := range secrets {
		shown[i] = AuditedSecret{Masked, s.ExpiresAt.UTC()}
	}
	return map[string][]AuditedSecret{"secrets": shown}
}

// AuditedSettings is what the audit shows of settings: of headers the names, and
// which of them were given a value.
type AuditedSettings struct {
	posthorn.Settings
	Values map[string]string `json:"new_header_values,omitzero"`
}

// AuditSettings is the settings of e for an [Audit].
func AuditSettings(e *posthorn.Endpoint, values []SealedHeader) any {
	a := AuditedSettings{Settings: e.Settings}
	for _, v := range values {
		if a.Values == nil {
			a.Values = map[string]string{}
		}
		a.Values[v.Name] = Masked
	}
	return a
}
