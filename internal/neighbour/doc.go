// Package neighbour shows that nobody pays for a neighbour: a real server, a tenant
// that publishes, lists and receives at a modest pace, and beside it tenants that
// take ten times their share of one scarce thing, from a process that is held to half
// a processor. What the first tenant notices is compared with what it noticed alone.
//
//	go test ./internal/neighbour                     # each attack, small: nothing of the victim is refused
//	go test -v ./internal/neighbour -long            # in full: also how long it waits, median of three
//	go test -v ./internal/neighbour -long -run /drip # one
//
// It is a package of tests: nothing imports it. What decides about shares is tested
// exactly, by counts and in virtual time, where it is decided.
package neighbour
