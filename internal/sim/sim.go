// Package sim tells the whole delivery path's stories in virtual time: package
// publish, the engine, the SQLite store and the sending client as they are, and
// receivers joined to them by a network in memory, inside a testing/synctest
// bubble. Days of outage take milliseconds, every instant is exact, and a crash
// can be put between any two steps. What happened is kept as a history, and a
// checker that reads nothing else holds it against what was promised.
//
// Beside the stories there are random worlds. A seed makes a script (tenants,
// endpoints, receivers' moods, steps); a script is data, so that one that fails is
// shrunk by leaving steps out:
//
//	go test -run RandomWorlds ./internal/sim -worlds 1000
//	go test -run RandomWorlds ./internal/sim -worlds 1 -seed 7 -keep 3,20,41
//
// It holds tests alone.
package sim
