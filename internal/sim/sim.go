// Package sim tells the whole delivery path's stories in virtual time: the
// engine, the SQLite store and the sending client as they are, and real HTTP
// servers, joined by a network in memory inside a testing/synctest bubble. Days
// of outage take milliseconds, every instant is exact, and a crash can be put
// between any two steps. After each story a checker holds what was promised
// against what the receivers saw.
//
// It holds tests alone.
package sim
