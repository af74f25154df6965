package posthorn

import (
	"crypto/rand"
	"encoding/binary"
	"time"

	"github.com/oklog/ulid/v2"
)

// ID identifies an event or a delivery inside the service. It is ordered by
// time, so that the newest rows stand together in every index:
//
//	 62                     22 21      14 13          0
//	+-------------------------+----------+-------------+
//	| ms since 2025-01-01 UTC |   node   |  sequence   |
//	|         41 bits         |  8 bits  |   14 bits   |
//	+-------------------------+----------+-------------+
//
// The sequence may run ahead of the clock: a store that needs more than 16,384
// ids in a millisecond, or whose clock stepped back, goes on in the next
// millisecond. The layout lasts until 2094. The zero ID is no id.
type ID int64

const (
	idNodeBits = 8
	idSeqBits  = 14

	// MaxSequence is the number of ids that one node may give out in one
	// millisecond: the bound of an event and its deliveries together.
	MaxSequence = 1 << idSeqBits
)

// The prefixes that ids carry where users see them.
const (
	EventPrefix    = "evt_"
	DeliveryPrefix = "dlv_"
	EndpointPrefix = "wh_"
	TokenPrefix    = "tok_"
	ReplayPrefix   = "rpl_"
	ExportPrefix   = "exp_"
)

var idEpoch = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()

// MakeID returns the id with the given time, node and sequence. A time before
// 2025 counts as its first millisecond.
func MakeID(at time.Time, node uint8, seq uint16) ID {
	ms := max(at.UnixMilli()-idEpoch, 0)
	return ID(ms<<(idNodeBits+idSeqBits) | int64(node)<<idSeqBits | int64(seq)&(MaxSequence-1))
}

// Time is the millisecond in the id: when it was given out, or shortly after
// where the sequence ran ahead.
func (id ID) Time() time.Time {
	return time.UnixMilli(int64(id)>>(idNodeBits+idSeqBits) + idEpoch).UTC()
}

// Node is the number of the node that gave the id out; 0 on the embedded store.
func (id ID) Node() uint8 { return uint8(id >> idSeqBits) }

// Sequence is the id's place within its millisecond and node.
func (id ID) Sequence() uint16 { return uint16(id) & (MaxSequence - 1) }

// Text returns prefix and the id as a ULID (https://github.com/ulid/spec, upper
// case, 26 characters). It orders like the id. The ULID's last 58 bits hold no
// randomness but a checksum, so that a mistyped id is unknown rather than
// another one.
func (id ID) Text(prefix string) string {
	var b [len(EventPrefix) + ulid.EncodedSize]byte // longer prefixes take memory of their own
	return string(id.AppendText(b[:0], prefix))
}

// AppendText appends what [ID.Text] returns.
func (id ID) AppendText(b []byte, prefix string) []byte {
	b = append(b, prefix...)
	n := len(b)
	b = append(b, make([]byte, ulid.EncodedSize)...)
	u := id.ulid()
	_ = u.MarshalTextTo(b[n:]) // cannot fail: the buffer has the size it asks for
	return b
}

// ParseID is the reverse of [ID.Text]. It reports false for anything that Text
// does not produce.
func ParseID(prefix, s string) (ID, bool) {
	if len(s) != len(prefix)+ulid.EncodedSize || s[:len(prefix)] != prefix {
		return 0, false
	}
	u, err := ulid.ParseStrict(s[len(prefix):])
	if err != nil {
		return 0, false
	}
	ms := int64(u.Time()) - idEpoch
	low := int64(binary.BigEndian.Uint32(u[6:10]) >> (32 - idNodeBits - idSeqBits))
	if ms < 0 || ms >= 1<<41 {
		return 0, false
	}
	id := ID(ms<<(idNodeBits+idSeqBits) | low)
	if id.Text(prefix) != s {
		return 0, false
	}
	return id, true
}

// ulid lays the id out as 48 bits of Unix milliseconds, 22 bits of node and
// sequence, and 58 bits of checksum.
func (id ID) ulid() (u ulid.ULID) {
	ms := uint64(int64(id)>>(idNodeBits+idSeqBits) + idEpoch)
	low := uint64(id) & (1<<(idNodeBits+idSeqBits) - 1)
	sum := mix(uint64(id))
	binary.BigEndian.PutUint64(u[0:8], ms<<16|low>>6)
	binary.BigEndian.PutUint64(u[8:16], low<<58|sum>>6)
	return u
}

// mix spreads the bits of x (the finalizer of SplitMix64, Steele et al. 2014).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// NewRef returns prefix and a random ULID of the given time: the public id of
// an endpoint, a tenant or a token. Its 80 random bits come from the system's
// generator, so that one ref says nothing about another.
func NewRef(prefix string, at time.Time) string {
	return prefix + ulid.MustNew(ulid.Timestamp(at), rand.Reader).String()
}

// ValidRef reports whether s has the form that [NewRef] gives.
func ValidRef(prefix, s string) bool {
	if len(s) != len(prefix)+ulid.EncodedSize || s[:len(prefix)] != prefix {
		return false
	}
	u, err := ulid.ParseStrict(s[len(prefix):])
	return err == nil && u.String() == s[len(prefix):]
}
