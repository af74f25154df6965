package secretbox_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/posthorn/posthorn/internal/secretbox"
)

func ring(t *testing.T, spec string) *secretbox.Keyring {
	t.Helper()
	k, err := secretbox.ParseKeys(spec)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestSealedSecretOpensOnlyWhereItBelongs(t *testing.T) {
	k := ring(t, secretbox.Generate("k1"))
	bind := secretbox.Bind{Kind: "secret", Tenant: 7, Endpoint: 9}
	plain := []byte("whsec material")
	id, box := k.Seal(plain, bind)
	if id != "k1" {
		t.Errorf("sealed with key %q, want k1", id)
	}
	if bytes.Contains(box, plain) {
		t.Error("the box shows the secret")
	}
	if got, err := k.Open(id, box, bind); err != nil || !bytes.Equal(got, plain) {
		t.Fatalf("Open = %q, %v", got, err)
	}
	for name, other := range map[string]secretbox.Bind{
		"another kind":      {Kind: "header", Tenant: 7, Endpoint: 9},
		"another tenant":    {Kind: "secret", Tenant: 8, Endpoint: 9},
		"another endpoint":  {Kind: "secret", Tenant: 7, Endpoint: 10},
		"numbers exchanged": {Kind: "secret", Tenant: 9, Endpoint: 7},
	} {
		if _, err := k.Open(id, box, other); !errors.Is(err, secretbox.ErrForged) {
			t.Errorf("%s: Open = %v, want ErrForged", name, err)
		}
	}
	for i := range box {
		changed := bytes.Clone(box)
		changed[i] ^= 1
		if _, err := k.Open(id, changed, bind); !errors.Is(err, secretbox.ErrForged) {
			t.Fatalf("byte %d changed: Open = %v, want ErrForged", i, err)
		}
	}
	for n := range box {
		if _, err := k.Open(id, box[:n], bind); !errors.Is(err, secretbox.ErrForged) {
			t.Fatalf("cut to %d bytes: Open = %v, want ErrForged", n, err)
		}
	}
}

func TestEqualSecretsMakeDifferentBoxes(t *testing.T) {
	k := ring(t, secretbox.Generate("k1"))
	_, a := k.Seal([]byte("same"), secretbox.Bind{})
	_, b := k.Seal([]byte("same"), secretbox.Bind{})
	if bytes.Equal(a, b) {
		t.Error("two boxes of the same secret are equal: the nonce repeats")
	}
}

func TestRotatedKeyStillOpens(t *testing.T) {
	first, second := secretbox.Generate("k1"), secretbox.Generate("k2")
	bind := secretbox.Bind{Kind: "secret", Tenant: 1, Endpoint: 2}
	id, box := ring(t, first).Seal([]byte("old"), bind)

	rotated := ring(t, second+", "+first)
	if got, err := rotated.Open(id, box, bind); err != nil || string(got) != "old" {
		t.Errorf("after the rotation Open = %q, %v", got, err)
	}
	if id, _ := rotated.Seal([]byte("new"), bind); id != "k2" || rotated.Current() != "k2" {
		t.Errorf("after the rotation %q seals, want the first, k2", id)
	}
	_, err := ring(t, second).Open(id, box, bind)
	if !errors.Is(err, secretbox.ErrUnknownKey) || !strings.Contains(err.Error(), `"k1"`) {
		t.Errorf("without the old key Open = %v, want ErrUnknownKey that names k1", err)
	}
	if _, err := ring(t, secretbox.Generate("k1")).Open(id, box, bind); !errors.Is(err, secretbox.ErrForged) {
		t.Errorf("another key with the same id: Open = %v, want ErrForged", err)
	}
}

func TestFaultsInKeysAreNamedWithoutTheKeys(t *testing.T) {
	good := secretbox.Generate("k1")
	_, material, _ := strings.Cut(good, ":")
	short := base64.StdEncoding.EncodeToString(make([]byte, 16))
	for name, c := range map[string]struct{ spec, want string }{
		"empty":         {"  ", "is empty"},
		"no id":         {material, "no colon"},
		"empty id":      {":" + material, "an id that is not"},
		"long id":       {strings.Repeat("k", 33) + ":" + material, "an id that is not"},
		"id with space": {"k 1:" + material, "an id that is not"},
		"not base64":    {"k1:" + strings.TrimRight(material, "="), "key k1 (entry 1) is not standard base64"},
		"short":         {"k1:" + short, "has 16 bytes, not 32"},
		"twice":         {good + "," + good, "key id k1 occurs twice"},
		"trailing":      {good + ",", "entry 2 has no colon"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := secretbox.ParseKeys(c.spec)
			if err == nil {
				t.Fatal("accepted")
			}
			for _, want := range []string{c.want, "posthorn key generate", secretbox.EnvironmentVariable} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
			if strings.Contains(err.Error(), material[:20]) {
				t.Errorf("error %q shows the key", err)
			}
		})
	}
}
