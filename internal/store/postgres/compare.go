package postgres

import (
	"github.com/posthorn/posthorn/internal/store"
)

// compareRows is how many rows of the run are read at a time.
const compareRows = 5000

// compare looks for rows that belong to this node's run and that nobody holds, and
// gives them back. There should be none: each one is counted, and is a fault.
func (s *Store) compare() {
	run, _, err := s.lease.current()
	if err != nil {
		return
	}
	for after := int64(0); ; {
		ids, err := s.ownRows(run, after)
		if err != nil {
			if s.stop.Err() == nil {
				s.log.Warn("the rows of this node could not be compared with its memory", "error", err)
			}
			return
		}
		if suspects := s.holdings.unheld(run, ids); len(suspects) > 0 {
			s.giveBackUnheld(run, suspects)
		}
		if len(ids) < compareRows {
			return
		}
		after = ids[len(ids)-1]
	}
}

func (s *Store) ownRows(run, after int64) ([]int64, error) {
	return all(s.stop, s, s.other, func(r scanner) (id int64, err error) { return id, r.Scan(&id) },
		`SELECT id FROM due WHERE run = $1 AND run > 0 AND id > $2 ORDER BY id LIMIT $3`, run, after, compareRows)
}

// giveBackUnheld gives back what still is unheld once its row is locked: whoever
// takes a row has it in memory before the commit that lets anybody else see it, and
// whoever gives one up keeps it there until that is committed.
func (s *Store) giveBackUnheld(run int64, suspects []int64) {
	n, err := s.letWaitLocked(func(tx *txn) ([]int64, error) {
		// Those of deleted endpoints and tenants are let go of, and canceled by Sweep.
		locked, err := tx.ids(`SELECT d.id FROM due d JOIN endpoints p ON p.id = d.endpoint AND p.deleted_at = 0 JOIN tenants t ON t.id = d.tenant AND t.deleted_at = 0
			WHERE d.id = ANY ($1) AND d.run = $2 ORDER BY d.endpoint, d.id FOR UPDATE OF d SKIP LOCKED`, suspects, run)
		return s.holdings.unheld(run, locked), err
	})
	if err != nil {
		s.log.Warn("deliveries that nobody held could not be given back; trying again", "error", err)
		return
	}
	if n == 0 {
		return
	}
	s.unheld.Add(int64(n))
	s.log.Error("deliveries belonged to this node and nobody held them; they are due again. This is a fault of Posthorn: please report it", "deliveries", n)
}

// Holdings implements [store.Holder].
func (s *Store) Holdings() (held int, unheld int64) { return s.holdings.count(), s.unheld.Load() }

// Standing implements [store.Mover].
func (s *Store) Standing() (all []store.Standing) {
	if s.lease == nil {
		return nil
	}
	all = s.publisher.moves.Stand(all, "publisher")
	all = s.recorder.moves.Stand(all, "recorder")
	return s.lease.moves.Stand(all, "renewals of the lease")
}
