// Package share knows what each party takes of what is scarce, and says who has
// to wait or is refused. A party is a tenant wherever one is known, so that nobody
// gets more by more tokens, requests, connections or endpoints.
//
// Three things are shared in three ways. A [Pool] is an amount that is given back:
// memory, connections, streams. A [Budget] comes back by itself: time of a
// processor. [Turns] are for what one party may do one at a time: long reads.
//
// One rule decides all pools ([Reserve]): three quarters are for who comes first,
// the last quarter only for those who hold little. So whoever takes all that is
// there leaves enough for everybody else's first steps, and what is not scarce is
// nobody's share. Times are parameters; nothing here does I/O.
package share

import (
	"errors"
	"net/netip"
)

// Errors of Take, Enter and their like. Their callers put them into words.
var (
	// ErrExceeded: the party has its share. Only it is refused.
	ErrExceeded = errors.New("share: the party has its share")
	// ErrFull: all is taken, though this party holds little or nothing.
	ErrFull = errors.New("share: all is taken")
)

// Party is who something counts for. It is comparable; the zero Party is nobody in
// particular, and shares as a party of its own.
type Party struct {
	kind kind
	id   int64
	name string
	addr netip.Addr
}

type kind uint8

const (
	kindNone kind = iota
	kindTenant
	kindToken
	kindPlatform
	kindAddress
)

// Tenant is the tenant with the store's id.
func Tenant(id int64) Party { return Party{kind: kindTenant, id: id} }

// Token is a token that names no tenant, by its reference.
func Token(ref string) Party { return Party{kind: kindToken, name: ref} }

// Platform is a platform's token that names no tenant: half of all is its share.
func Platform(ref string) Party { return Party{kind: kindPlatform, name: ref} }

// Address is who is known by an address alone. An IPv6 address stands for its /64,
// which is what one subscriber has.
func Address(a netip.Addr) Party { return Party{kind: kindAddress, addr: Subscriber(a)} }

// Subscriber is the address that stands for all of one subscriber's.
func Subscriber(a netip.Addr) netip.Addr {
	a = a.Unmap()
	if a.Is6() {
		if p, err := a.WithZone("").Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a
}

// IsPlatform reports whether the party's share is half of all.
func (p Party) IsPlatform() bool { return p.kind == kindPlatform }

// Reserve reports whether a party that would then hold that much may be given a
// part of the last quarter of all: less than an eighth of all divided by the
// parties that hold something, itself among them. One unit always is little.
func Reserve(all, held int64, parties int) bool {
	return held <= 1 || held < Part(all, parties)
}

// Part is what a party holds at most with a part of the last quarter.
func Part(all int64, parties int) int64 { return all / 8 / int64(max(parties, 1)) }

// Scarce reports whether no more than the last quarter is left once that much of
// all is taken.
func Scarce(all, taken int64) bool { return taken > all-all/4 }
