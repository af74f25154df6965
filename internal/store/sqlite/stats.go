package sqlite

func (tx *txn) writeStats() error {
	for k, s := range tx.hours {
		b := &s.Buckets
		if err := tx.exec(`INSERT INTO endpoint_stats (endpoint, hour, ok, failed, succeeded, exhausted, canceled, expired, b0, b1, b2, b3, b4, b5, b6, b7, b8, b9)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT (endpoint, hour) DO UPDATE SET ok = ok + excluded.ok, failed = failed + excluded.failed,
			succeeded = succeeded + excluded.succeeded, exhausted = exhausted + excluded.exhausted,
			canceled = canceled + excluded.canceled, expired = expired + excluded.expired,
			b0 = b0 + excluded.b0, b1 = b1 + excluded.b1, b2 = b2 + excluded.b2, b3 = b3 + excluded.b3, b4 = b4 + excluded.b4,
			b5 = b5 + excluded.b5, b6 = b6 + excluded.b6, b7 = b7 + excluded.b7, b8 = b8 + excluded.b8, b9 = b9 + excluded.b9`,
			k.Endpoint, k.Hour, s.OK, s.Failed, s.Succeeded, s.Exhausted, s.Canceled, s.Expired,
			b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9]); err != nil {
			return err
		}
	}
	return nil
}
