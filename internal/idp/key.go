package idp

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"math/big"
)

// Key signs tokens.
type Key struct {
	ID, Alg string
	private crypto.Signer
}

// NewKey makes a key for RS256, ES256 or EdDSA (Ed25519).
func NewKey(id, alg string) Key {
	k := Key{ID: id, Alg: alg}
	var err error
	switch alg {
	case "RS256":
		k.private, err = rsa.GenerateKey(rand.Reader, 2048)
	case "ES256":
		k.private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "EdDSA":
		_, k.private, err = ed25519.GenerateKey(rand.Reader)
	default:
		panic("idp: there is no key for " + alg)
	}
	if err != nil {
		panic(err) // the machine has no random numbers
	}
	return k
}

// Weak is an RSA key that is too short.
func Weak(id string) Key {
	private, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		panic(err)
	}
	return Key{ID: id, Alg: "RS256", private: private}
}

// Public is the public key, as what a forger has.
func (k Key) Public() crypto.PublicKey { return k.private.Public() }

// Sign makes a JWT (RFC 7515, compact) of claims.
func (k Key) Sign(claims map[string]any) string {
	header := map[string]any{"alg": k.Alg, "typ": "JWT"}
	if k.ID != "" {
		header["kid"] = k.ID
	}
	return Assemble(header, claims, k.Signature)
}

// Assemble joins a JWT of parts that need not fit together.
func Assemble(header, claims any, sign func(input []byte) []byte) string {
	input := part(header) + "." + part(claims)
	return input + "." + base64.RawURLEncoding.EncodeToString(sign([]byte(input)))
}

func part(v any) string {
	b, ok := v.([]byte)
	if !ok {
		b, _ = json.Marshal(v) // maps of plain values
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// Signature signs what is to be a token.
func (k Key) Signature(input []byte) []byte {
	sum := sha256.Sum256(input)
	var sig []byte
	var err error
	switch private := k.private.(type) {
	case *rsa.PrivateKey:
		sig, err = rsa.SignPKCS1v15(rand.Reader, private, crypto.SHA256, sum[:])
	case *ecdsa.PrivateKey: // RFC 7518, section 3.4: r and s, 32 bytes each
		var r, s *big.Int
		if r, s, err = ecdsa.Sign(rand.Reader, private, sum[:]); err == nil {
			sig = append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
		}
	case ed25519.PrivateKey:
		sig = ed25519.Sign(private, input)
	}
	if err != nil {
		panic(err)
	}
	return sig
}

// public is the key as a JWK (RFC 7517).
func (k Key) public() map[string]any {
	b64 := base64.RawURLEncoding.EncodeToString
	jwk := map[string]any{"kid": k.ID, "alg": k.Alg, "use": "sig"}
	switch public := k.private.Public().(type) {
	case *rsa.PublicKey:
		jwk["kty"], jwk["n"], jwk["e"] = "RSA", b64(public.N.Bytes()), b64(big.NewInt(int64(public.E)).Bytes())
	case *ecdsa.PublicKey:
		point, err := public.Bytes() // 4, x, y
		if err != nil {
			panic(err)
		}
		jwk["kty"], jwk["crv"], jwk["x"], jwk["y"] = "EC", "P-256", b64(point[1:33]), b64(point[33:])
	case ed25519.PublicKey:
		jwk["kty"], jwk["crv"], jwk["x"] = "OKP", "Ed25519", b64(public)
	}
	return jwk
}
