package sqlite

import (
	"fmt"
	"net/url"

	_ "modernc.org/sqlite" // registers the driver "sqlite"
)

// writerPragmas hold per connection. The page size is that of SQLite and is for a
// file that is yet to be made: pages of 8 KiB cost 6 % more processor time. busy_timeout
// comes first: the others may have to wait for a lock.
func writerPragmas(o Options) []string {
	auto := checkpointPages
	if o.checkpoints() {
		auto = 0 // no commit takes the log in
	}
	return []string{
		"busy_timeout(5000)",
		"page_size(4096)",
		"journal_mode(WAL)",
		"synchronous(" + o.Synchronous + ")",
		"foreign_keys(0)",
		"secure_delete(1)",
		fmt.Sprintf("wal_autocheckpoint(%d)", auto),
		"journal_size_limit(67108864)",
		"cache_size(-16384)",
		"temp_store(2)",
	}
}

// writerDSN is for the driver, which makes the file and brings its schema up to
// date.
func writerDSN(o Options) string { return dsn(o.Path, "immediate", writerPragmas(o)...) }

func readerDSN(o Options) string {
	return dsn(o.Path, "deferred", "busy_timeout(5000)", "query_only(1)", "cache_size(-2048)", "temp_store(2)")
}

func checkpointDSN(o Options) string {
	return dsn(o.Path, "deferred", "busy_timeout(5000)", "synchronous("+o.Synchronous+")", "cache_size(-256)")
}

func dsn(path, lock string, pragmas ...string) string {
	q := url.Values{"_txlock": {lock}, "_pragma": pragmas}
	// The path is escaped, so that a ? or # in it is not taken for syntax.
	u := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: q.Encode()}
	return u.String()
}
