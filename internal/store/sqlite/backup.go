package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// partial ends the name of a file that is not whole yet.
const partial = ".partial"

// Backup writes a whole and consistent copy of the file at path to the file at
// to, which must not exist, while the service goes on. The copy is readable by
// its owner only, is on disk and was verified when Backup returns: see [Verify].
// It holds what was committed when it began. progress is told now and then how
// many bytes of about how many are written; nil for nobody.
func Backup(ctx context.Context, path, to string, c store.Change, progress func(done, total int64)) (inv store.Inventory, err error) {
	if err := mustNotExist(to); err != nil {
		return inv, err
	}
	s, err := Open(ctx, Options{Path: path, Role: Admin, Poll: -1})
	if err != nil {
		return inv, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	temp := to + partial
	f, err := createOwn(temp)
	if err != nil {
		return inv, err
	}
	if err := f.Close(); err != nil {
		return inv, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, removeFile(temp))
		}
	}()
	if err := vacuumInto(ctx, path, temp, progress); err != nil {
		return inv, explainBackup(to, err)
	}
	if err := markBackup(ctx, temp, c.At); err != nil {
		return inv, explainBackup(to, err)
	}
	if inv, err = Verify(ctx, temp); err != nil {
		return inv, fmt.Errorf("the copy is not good, and was removed: %w", err)
	}
	// Audited before it can be used: a backup holds everything.
	err = s.change(ctx, c, func(tx *txn) error {
		return tx.audit(c, 0, store.Audit{Action: "store.backup", Subject: filepath.Base(to), After: inv})
	})
	if err != nil {
		return inv, err
	}
	return inv, publishFile(temp, to)
}

// vacuumInto copies in one statement, which reads one state of the file.
func vacuumInto(ctx context.Context, from, to string, progress func(done, total int64)) (err error) {
	// It would be refused under query_only, which all other readers have.
	db, err := sql.Open("sqlite", dsn(from, "deferred", "busy_timeout(5000)", "temp_store(2)"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	db.SetMaxOpenConns(1)
	var size int64
	if err := db.QueryRowContext(ctx, `SELECT page_count * page_size FROM pragma_page_count, pragma_page_size`).Scan(&size); err != nil {
		return err
	}
	watching, stop := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		watchSize(watching, to, size, progress)
	}()
	_, err = db.ExecContext(ctx, `VACUUM INTO ?`, to)
	stop()
	<-watched
	return err
}

func watchSize(ctx context.Context, path string, total int64, progress func(done, total int64)) {
	if progress == nil {
		return
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			progress(total, total)
			return
		case <-tick.C:
			if info, err := os.Stat(path); err == nil {
				progress(min(info.Size(), total), total)
			}
		}
	}
}

// markBackup makes the copy one that sends nothing by itself when it is served:
// see [txn.restored].
func markBackup(ctx context.Context, path string, at time.Time) (err error) {
	db, err := sql.Open("sqlite", dsn(path, "immediate", "busy_timeout(5000)", "journal_mode(DELETE)", "synchronous(FULL)", "secure_delete(1)"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	db.SetMaxOpenConns(1)
	_, err = db.ExecContext(ctx, `INSERT INTO meta (key, value) VALUES ('backup_at', ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value`, nanos(at))
	return err
}

// Verify checks a backup: every page and index, that each delivery has its event
// and each event its payload, that lists can be read, and that the schema is not a newer
// version's; an older one is brought to this version when it is served. It changes nothing.
func Verify(ctx context.Context, path string) (inv store.Inventory, err error) {
	if err := checkFile(path, false); err != nil {
		return inv, explainOpen(path, err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return inv, err
	}
	inv.Bytes = info.Size()
	db, err := sql.Open("sqlite", dsn(path, "deferred", "query_only(1)", "cache_size(-65536)"))
	if err != nil {
		return inv, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	db.SetMaxOpenConns(1)
	version, _, err := checkNotNewer(ctx, db, path)
	if err == nil && version == 0 {
		err = fmt.Errorf("%w: it holds no table of Posthorn", ErrCorrupt)
	}
	if err != nil {
		return inv, explainOpen(path, err)
	}
	var verdict string
	if err := db.QueryRowContext(ctx, `PRAGMA integrity_check(1)`).Scan(&verdict); err != nil {
		return inv, explainOpen(path, err)
	}
	if verdict != "ok" {
		return inv, explainOpen(path, fmt.Errorf("%w: %s", ErrCorrupt, verdict))
	}
	for _, check := range []struct{ fault, query string }{
		{"a delivery has no event", `SELECT EXISTS (SELECT 1 FROM deliveries d WHERE NOT EXISTS (SELECT 1 FROM events e WHERE e.id = d.event))`},
		{"an event has no payload", `SELECT EXISTS (SELECT 1 FROM events e WHERE erased_at = 0 AND NOT EXISTS (SELECT 1 FROM payloads p WHERE p.event = e.id))`},
	} {
		var bad bool
		if err := db.QueryRowContext(ctx, check.query).Scan(&bad); err != nil {
			return inv, explainOpen(path, err)
		}
		if bad {
			return inv, explainOpen(path, fmt.Errorf("%w: %s", ErrCorrupt, check.fault))
		}
	}
	if version >= postingsVersion {
		err := fill(ctx, db, `SELECT last, ids FROM postings`, nil, func(r scanner) error {
			_, err := scanPostings(nil, r)
			return err
		})
		if err != nil {
			return inv, explainOpen(path, err)
		}
	}
	err = db.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM tenants WHERE deleted_at = 0), (SELECT count(*) FROM endpoints WHERE deleted_at = 0),
		(SELECT count(*) FROM events), count(*), count(*) FILTER (WHERE place <> 0) FROM deliveries`).
		Scan(&inv.Tenants, &inv.Endpoints, &inv.Events, &inv.Deliveries, &inv.Open)
	return inv, err
}

// Restore puts a backup in the place of the file at path, which must not be
// served. What was there is kept beside it, under the name that aside returns,
// "" when there was nothing. The restored store sends nothing until sending is
// resumed.
func Restore(ctx context.Context, backup, path string, now time.Time) (inv store.Inventory, aside string, err error) {
	lock, err := lockFile(path)
	if err != nil {
		return inv, "", explainOpen(path, err)
	}
	defer func() { err = errors.Join(err, lock.release()) }()
	temp := path + partial
	if err := copyFile(backup, temp); err != nil {
		return inv, "", err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, removeFile(temp))
		}
	}()
	if inv, err = Verify(ctx, temp); err != nil {
		return inv, "", fmt.Errorf("the backup is not good; nothing was changed: %w", err)
	}
	if err := markIfBare(ctx, temp, now); err != nil {
		return inv, "", err
	}
	if aside, err = setAside(path, now); err != nil {
		return inv, aside, err
	}
	return inv, aside, publishFile(temp, path)
}

// markIfBare marks a copy that was not made by [Backup], such as that of a
// stopped service's file.
func markIfBare(ctx context.Context, path string, now time.Time) (err error) {
	db, err := sql.Open("sqlite", dsn(path, "deferred", "query_only(1)"))
	if err != nil {
		return err
	}
	var marked bool
	err = db.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM meta WHERE key = 'backup_at')`).Scan(&marked)
	if err = errors.Join(err, db.Close()); err != nil || marked {
		return err
	}
	return markBackup(ctx, path, now)
}

// setAside moves a database away with its log.
func setAside(path string, now time.Time) (aside string, err error) {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return "", checkNoLog(path, "missing")
	}
	aside = path + ".before-" + now.UTC().Format("20060102T150405Z")
	if err := mustNotExist(aside); err != nil {
		return "", err
	}
	// The log first: without it the file is as it was some time ago, while a log
	// without its file is refused.
	for _, suffix := range []string{"-wal", ""} {
		if err := os.Rename(path+suffix, aside+suffix); err != nil && !(suffix != "" && errors.Is(err, fs.ErrNotExist)) {
			return aside, err
		}
	}
	return aside, removeFile(path + "-shm")
}

// restored makes a backup that is served for the first time one that can be: it
// sends nothing, as what was sent since the backup would be sent again, and gives
// out no id that the lost store gave out after the backup.
func (tx *txn) restored() error {
	at, err := tx.meta("backup_at", 0)
	if err != nil || at == 0 {
		return err
	}
	now := tx.w.now()
	tx.last = max(tx.last, posthorn.MakeID(now.Add(max(tx.lead, minLead)), 0, 0))
	for key, value := range map[string]int64{"last_id": int64(tx.last), "sending_off": 1, "restored_from": at} {
		if err := tx.setMeta(key, value); err != nil {
			return err
		}
	}
	// Far more tenants, endpoints and tokens than the lost store can have made.
	if err := tx.exec(`UPDATE sqlite_sequence SET seq = seq + 1000000 WHERE name IN ('tenants', 'tokens', 'endpoints', 'endpoint_secrets')`); err != nil {
		return err
	}
	if err := tx.exec(`DELETE FROM meta WHERE key = 'backup_at'`); err != nil {
		return err
	}
	return tx.audit(store.Change{Actor: "posthorn", At: now}, 0, store.Audit{Action: "store.restore", After: map[string]string{"backup_at": posthorn.FormatTime(fromNanos(at))}})
}

// Outlook implements [store.Keeper].
func (s *Store) Outlook(ctx context.Context, now time.Time) (o store.Outlook, err error) {
	var from int64
	err = s.readers.QueryRowContext(ctx, `SELECT count(*), count(*) FILTER (WHERE next_at <= ?1 AND p.status = 'active' AND p.deleted_at = 0 AND t.suspended_at = 0 AND t.deleted_at = 0),
		coalesce((SELECT value FROM meta WHERE key = 'restored_from'), 0)
		FROM (SELECT endpoint, CASE WHEN next_at >= ?2 THEN next_at - ?2 ELSE next_at END AS next_at FROM deliveries INDEXED BY deliveries_due WHERE place IN (1, 2)
			UNION ALL SELECT endpoint, 0 FROM deliveries INDEXED BY deliveries_parked WHERE place = 3) d
		LEFT JOIN endpoints p ON p.id = d.endpoint LEFT JOIN tenants t ON t.id = p.tenant`, nanos(now), int64(ownedOffset)).Scan(&o.Open, &o.Due, &from)
	if err != nil {
		return store.Outlook{}, readError(ctx, err)
	}
	o.RestoredFrom = fromNanos(from)
	return o, nil
}
