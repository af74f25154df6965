package sqlite

import (
	"context"
	"fmt"
)

// Limit lets the file grow to so many pages only, like a full disk.
func (s *Store) Limit(pages int) error {
	return s.writer.do(context.Background(), func(tx *txn) error {
		var n int
		_, err := tx.row(fmt.Sprintf("PRAGMA max_page_count = %d", pages), nil, &n)
		return err
	})
}
