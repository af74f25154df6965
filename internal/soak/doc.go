// Package soak holds no code but tests. They run one real "posthorn serve" for a long
// time with all that happens to one at once, each now and then:
//
//   - several tenants publish to receivers that are healthy, slow, refuse first attempts,
//     are down for a while, keep order, are paused, come and go;
//   - people and programs change endpoints, rotate secrets, repeat, replay, cancel, erase,
//     export, look at lists, make and delete tokens and tenants;
//   - a client of the stream stops reading and returns; the store is backed up;
//   - a hostile tenant beside them takes what it can get: costly filters, receivers that
//     answer late or drip, bodies that drip, answers that it does not read, unknown
//     tokens, idle connections.
//
// At the end the figures of /metrics are compared with what the receivers and the
// publishers counted, and the lists of each tenant with every single request: nothing is
// lost, nothing is somebody else's, nothing came twice unasked. In a run of at least 20
// minutes memory, files, goroutines, threads, the log and temporary files must be flat: see
// flat_test.go.
//
// "go test ./..." makes a short form of some ten seconds, "make soak" one of an hour.
package soak
