package sqlite

import (
	"fmt"
	"net/url"

	_ "modernc.org/sqlite" // registers the driver "sqlite"
)

// Pragmas hold per connection, so they stand in the DSN. busy_timeout comes
// first: the others may have to wait for a lock.
func writerDSN(o Options) string {
	auto := checkpointPages
	if o.checkpoints() {
		auto = checkpointLast
	}
	return dsn(o.Path, "immediate",
		"busy_timeout(5000)",
		"page_size(8192)",
		"journal_mode(WAL)",
		"synchronous("+o.Synchronous+")",
		"foreign_keys(0)",
		"secure_delete(1)",
		fmt.Sprintf("wal_autocheckpoint(%d)", auto),
		"journal_size_limit(67108864)",
		"cache_size(-16384)",
		"temp_store(2)",
	)
}

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
