package verdict

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/posthorn/posthorn/webhook"
)

// mac is the raw signature of the parts.
func mac(key []byte, parts ...[]byte) []byte {
	h := hmac.New(sha256.New, key)
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

// matches reports whether one of the signatures is the sum, in the right form.
func (j *judge) matches(sum []byte) bool {
	want := []byte(base64.StdEncoding.EncodeToString(sum))
	for _, s := range j.signatures {
		if hmac.Equal([]byte(s), want) {
			return true
		}
	}
	return false
}

// resembles also takes forms that no library accepts.
func (j *judge) resembles(sum []byte) (how string) {
	std, hexed := base64.StdEncoding.EncodeToString(sum), hex.EncodeToString(sum)
	for _, s := range j.signatures {
		bare := strings.TrimRight(s, "=")
		switch {
		case s == std:
			return "as it should be"
		case bare == strings.TrimRight(std, "="):
			return "in base64 without its padding"
		case bare == strings.TrimRight(base64.URLEncoding.EncodeToString(sum), "="):
			return "in the URL-safe alphabet of base64"
		case strings.EqualFold(s, hexed):
			return "in hexadecimal"
		case s == base64.StdEncoding.EncodeToString([]byte(hexed)):
			return "in hexadecimal within base64"
		}
	}
	return ""
}

// split takes the webhook-signature header apart.
func (j *judge) split() *Verdict {
	var other, comma, scheme bool
	for _, line := range j.Header.Values(webhook.HeaderSignature) {
		for one := range strings.FieldsFuncSeq(line, func(r rune) bool { return r == ' ' || r == '\t' }) {
			// Lines that something on the way has joined have a comma behind each.
			name, sig, found := strings.Cut(strings.TrimSuffix(one, ","), ",")
			switch {
			case found && name == "v1":
				j.signatures = append(j.signatures, sig)
				comma = comma || strings.Contains(sig, ",")
			case found && strings.HasPrefix(name, "v1"):
				other = true // v1a and the like are schemes of their own
			case strings.HasPrefix(one, "sha256=") || strings.Contains(one, "v1="):
				scheme = true
			}
		}
	}
	switch {
	case comma:
		return say(MalformedSignature, "The webhook-signature header joins signatures with commas; they are separated by one space.", "Something before the receiver rewrote the header.")
	case len(j.signatures) > 0:
		return nil
	case scheme:
		return say(MalformedSignature, "The webhook-signature header has the form of another product (sha256=… or t=…,v1=…); it is v1,<base64>.", "Is this the header of another sender?")
	case other:
		return say(MalformedSignature, "The webhook-signature header holds no v1 signature, only schemes that the secret is not for.", "Posthorn signs with v1.")
	}
	return say(MalformedSignature, "The webhook-signature header holds no v1 signature: one is \"v1,\" and the base64 of 32 bytes.", "Use the whole header as it came, with \"v1,\".")
}

// encoding tries keys, contents and forms that are commonly mistaken for the
// right ones.
func (j *judge) encoding() *Verdict {
	for i, key := range j.keys {
		text := j.Secrets[i]
		for _, k := range []struct {
			name string
			key  []byte
		}{
			{"", key},
			{"the secret's text, with whsec_, was taken for the key", []byte(text)},
			{"the secret's text behind whsec_ was taken for the key", []byte(strings.TrimPrefix(text, "whsec_"))},
		} {
			for _, c := range []struct {
				name  string
				parts [][]byte
			}{
				{"", [][]byte{j.prefix(), j.Body}},
				{"only the body was signed", [][]byte{j.Body}},
				{"the id was left out", [][]byte{[]byte(j.stamp + "."), j.Body}},
				{"the timestamp was left out", [][]byte{[]byte(j.id + "."), j.Body}},
				{"id and timestamp changed places", [][]byte{[]byte(j.stamp + "." + j.id + "."), j.Body}},
				{"the dots were left out", [][]byte{[]byte(j.id + j.stamp), j.Body}},
			} {
				how := j.resembles(mac(k.key, c.parts...))
				if how == "" {
					continue
				}
				var wrong []string
				for _, name := range []string{k.name, c.name} {
					if name != "" {
						wrong = append(wrong, name)
					}
				}
				if how != "as it should be" {
					wrong = append(wrong, "it is written "+how)
				}
				v := say(WrongEncoding, fmt.Sprintf("Secret and body are right, but the signature was made in another way: %s.", strings.Join(wrong, ", and ")),
					"Sign \"id.timestamp.body\" with the bytes that the base64 behind whsec_ stands for, and write the standard base64 with padding.")
				v.Secret = i + 1
				return v
			}
		}
	}
	if j.wellFormed() {
		return nil
	}
	return say(MalformedSignature, "The signature behind \"v1,\" is not the padded standard base64 of 32 bytes; it was cut or rewritten.", "Use the whole header as it came.")
}

// wellFormed reports whether a signature could be one at all.
func (j *judge) wellFormed() bool {
	for _, s := range j.signatures {
		if sum, err := base64.StdEncoding.Strict().DecodeString(s); err == nil && len(sum) == sha256.Size && !bytes.ContainsAny([]byte(s), "\r\n") {
			return true
		}
	}
	return false
}
