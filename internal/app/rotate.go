package app

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/api"
	"github.com/posthorn/posthorn/internal/secretbox"
	"github.com/posthorn/posthorn/internal/store"
)

// resealPage is how many boxes are read and replaced at a time: small enough that
// a serving process beside it does not notice.
const resealPage = 100

// RotateKeys seals with the first of the keys what the others have sealed in the
// store at path: after it they are not needed any more. A service may run beside
// it, and it may be repeated. Nothing is done unless the service was last started
// with the first key, the same bytes: it could not open what is sealed with it.
// It returns how many secrets of endpoints and how many remembered answers were
// sealed anew, in the error case too.
func RotateKeys(ctx context.Context, path, keys string) (secrets, answers int, err error) {
	ring, err := openKeys(keys)
	if err != nil {
		return 0, 0, err
	}
	s, err := OpenStore(ctx, path)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	noted, err := s.NotedKeys(ctx)
	if err != nil {
		return 0, 0, err
	}
	if err := servedWith(noted, ring); err != nil {
		return 0, 0, err
	}
	return reseal(ctx, s, ring, time.Now)
}

// noteKeys records which keys this service has, for [RotateKeys].
func (n *node) noteKeys(ctx context.Context) error {
	noted, err := n.store.NotedKeys(ctx)
	if err == nil {
		err = sameKeys(noted, n.keys)
	}
	if err == nil {
		err = n.store.NoteKeys(ctx, n.keys.Fingerprints())
	}
	return err
}

// servedWith checks that the service has the key that is about to seal.
func servedWith(noted map[string]int64, ring *secretbox.Keyring) error {
	if err := sameKeys(noted, ring); err != nil {
		return err
	}
	if _, known := noted[ring.Current()]; !known && len(noted) > 0 {
		return posthorn.Errorf(posthorn.Conflict, "The service was last started without the key %s and could not open what it seals; put it before the others in %s, restart the service, then repeat this.",
			ring.Current(), secretbox.EnvironmentVariable)
	}
	return nil
}

// sameKeys refuses a key that has the id of one that the service had, but other
// bytes: it would open nothing of what that one sealed.
func sameKeys(noted map[string]int64, ring *secretbox.Keyring) error {
	prints := ring.Fingerprints()
	for _, id := range slices.Sorted(maps.Keys(prints)) {
		if before, known := noted[id]; known && before != prints[id] {
			return posthorn.Errorf(posthorn.Invalid, "The key %s in %s is not the one that the service was last started with: give back the former one, and each new key an id of its own.",
				id, secretbox.EnvironmentVariable)
		}
	}
	return nil
}

// reseal goes through all boxes once.
func reseal(ctx context.Context, s store.Sealing, ring *secretbox.Keyring, now func() time.Time) (secrets, answers int, err error) {
	var after store.Box
	var lost error
	for {
		boxes, err := s.Boxes(ctx, after, resealPage)
		if err != nil {
			return secrets, answers, errors.Join(lost, err)
		}
		var work [2][]store.Resealed // secrets, answers: counted apart
		for i := range boxes {
			r, needed, err := resealed(&boxes[i], ring)
			switch {
			case err != nil && lost == nil:
				lost = err
			case err == nil && needed && r.Kind == store.BoxAnswer:
				work[1] = append(work[1], r)
			case err == nil && needed:
				work[0] = append(work[0], r)
			}
		}
		for i, count := range []*int{&secrets, &answers} {
			if len(work[i]) == 0 {
				continue
			}
			n, err := s.Reseal(ctx, store.Change{Actor: "cli", At: now().UTC()}, work[i])
			if *count += n; err != nil {
				return secrets, answers, errors.Join(lost, err)
			}
		}
		if len(boxes) < resealPage {
			return secrets, answers, lost
		}
		after = boxes[len(boxes)-1]
	}
}

// resealed opens a box and seals it with the first key, if another one sealed it.
func resealed(b *store.Box, ring *secretbox.Keyring) (r store.Resealed, needed bool, err error) {
	keyID, box, ok := b.KeyID, b.Sealed, true
	if b.Kind == store.BoxAnswer {
		keyID, box, ok = secretbox.Unpack(b.Sealed)
	}
	switch {
	case keyID == ring.Current():
		return r, false, nil
	case !ok:
		return r, false, errors.New("a remembered answer is damaged; it is forgotten within a day")
	}
	plain, bind, err := openBox(ring, b, keyID, box)
	if err != nil {
		return r, false, fmt.Errorf("not everything could be opened, and what could not stays as it was: %w", err)
	}
	defer clear(plain)
	r = store.Resealed{Box: *b}
	r.NewKeyID, r.NewSealed = ring.Seal(plain, bind)
	if b.Kind == store.BoxAnswer {
		r.NewSealed = secretbox.Pack(r.NewKeyID, r.NewSealed)
	}
	return r, true, nil
}

// openBox opens what is sealed of one row, in whatever form it is.
func openBox(ring *secretbox.Keyring, b *store.Box, keyID string, box []byte) ([]byte, secretbox.Bind, error) {
	return ring.OpenAny(keyID, box, secretbox.Bind{Tenant: b.Tenant, Endpoint: b.Endpoint}, boxKinds[b.Kind]...)
}

var boxKinds = map[store.BoxKind][]string{
	store.BoxSecret: {api.SecretKind}, store.BoxHeader: secretbox.HeaderKinds, store.BoxAnswer: {api.AnswerKind},
}
