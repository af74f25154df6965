package sqlite

import (
	"slices"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// writeSettings stores the settings of e, gives headers new values, and deletes
// those of headers that are not in the settings any more.
func (tx *txn) writeSettings(e *posthorn.Endpoint, values []store.SealedHeader) error {
	_, settings, err := documents(e)
	if err != nil {
		return refuse(err)
	}
	if err := tx.exec(`UPDATE endpoints SET settings = ?, settings_version = ? WHERE id = ?`, settings, e.SettingsVersion, e.ID); err != nil {
		return err
	}
	var headers []store.SealedHeader
	if err := tx.rows(selectHeaders, []any{e.ID}, func(r scanner) error {
		h, err := scanHeader(r)
		headers = append(headers, h)
		return err
	}); err != nil {
		return err
	}
	for _, h := range headers {
		replaced := slices.ContainsFunc(values, func(v store.SealedHeader) bool { return v.Name == h.Name })
		if !replaced && slices.Contains(e.Settings.Headers, h.Name) {
			continue
		}
		if err := tx.exec(`DELETE FROM endpoint_secrets WHERE id = ?`, h.ID); err != nil {
			return err
		}
	}
	for _, v := range values { // always new rows: an id stands for one value
		if err := tx.insertSealed(e.ID, "header", v.Name, v.Sealed); err != nil {
			return err
		}
	}
	return nil
}

const selectHeaders = `SELECT name, id, key_id, box, created_at, expires_at FROM endpoint_secrets WHERE endpoint = ? AND kind = 'header' ORDER BY id`

func scanHeader(r scanner) (h store.SealedHeader, err error) {
	var created, expires int64
	err = r.Scan(&h.Name, &h.ID, &h.KeyID, &h.Box, &created, &expires)
	h.CreatedAt, h.ExpiresAt = fromNanos(created), fromNanos(expires)
	return h, err
}
