// Package cluster holds no code but tests. They run several real processes of
// "posthorn serve" on one PostgreSQL, under load, and do to them what machines and
// networks do: SIGKILL, a stop past the lease and a return, a cut from the
// database, a crash of the database, a failover to its standby. They count at the
// receivers that every event that was answered 202 arrives, and that it comes
// twice only where a node died or was cut off.
//
// "go test ./..." makes a short run, "make cluster" a long one.
package cluster
