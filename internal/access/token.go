package access

import (
	"crypto/rand"
	"crypto/sha256"
	"hash/crc32"
)

// TokenPrefix begins every token, so that people and secret scanners know one
// when they see it.
const TokenPrefix = "pht_"

const (
	// 43 characters of 62 hold 256 bits; 6 hold the 32 of the checksum.
	tokenRandom   = 43
	tokenChecksum = 6
	tokenLength   = len(TokenPrefix) + tokenRandom + tokenChecksum
	alphabet      = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

// NewToken returns a fresh token and the SHA-256 under which it is stored. The
// text is shown once and kept nowhere: 256 random bits need no slow hash.
func NewToken() (text string, hash [32]byte) {
	b := make([]byte, 0, tokenLength)
	b = append(b, TokenPrefix...)
	for len(b) < len(TokenPrefix)+tokenRandom {
		var random [64]byte
		rand.Read(random[:]) // never fails: the runtime ends the process instead
		for _, r := range random {
			// 248 is the largest multiple of 62 in a byte: what lies above would
			// make the first characters likelier.
			if r < 248 && len(b) < len(TokenPrefix)+tokenRandom {
				b = append(b, alphabet[r%62])
			}
		}
	}
	b = appendChecksum(b)
	return string(b), sha256.Sum256(b)
}

// HashToken returns the hash of a token's text. It reports false for anything
// that [NewToken] cannot have returned: a mistyped or shortened token is
// recognised without a look into the store.
func HashToken(text string) (hash [32]byte, ok bool) {
	if len(text) != tokenLength || text[:len(TokenPrefix)] != TokenPrefix {
		return hash, false
	}
	var whole, expected [tokenLength]byte
	copy(whole[:], text)
	for _, c := range whole[len(TokenPrefix):] {
		if !('0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z') {
			return hash, false
		}
	}
	copy(expected[:], whole[:tokenLength-tokenChecksum])
	appendChecksum(expected[:tokenLength-tokenChecksum])
	if whole != expected {
		return hash, false
	}
	return sha256.Sum256(whole[:]), true
}

// appendChecksum appends the CRC-32 of b, most significant digit first.
func appendChecksum(b []byte) []byte {
	sum := crc32.ChecksumIEEE(b)
	var digits [tokenChecksum]byte
	for i := range digits {
		digits[tokenChecksum-1-i] = alphabet[sum%62]
		sum /= 62
	}
	return append(b, digits[:]...)
}
