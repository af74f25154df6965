package app

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/api"
	"github.com/posthorn/posthorn/internal/lane"
	"github.com/posthorn/posthorn/internal/publish"
	"github.com/posthorn/posthorn/internal/secretbox"
	"github.com/posthorn/posthorn/internal/send"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/webhook"
)

// lanes lets publish hand deliveries to the engine without knowing it.
type lanes struct{ *lane.Engine }

func (l lanes) Reserve(tenant, endpoint int64, size int) publish.Slot {
	return l.Engine.Reserve(tenant, endpoint, size)
}

func (l lanes) ReserveParked(endpoint int64) publish.Slot { return l.Engine.ReserveParked(endpoint) }

// sender makes the engine's attempts: it opens the endpoint's secrets and hands
// the request to the guarded client.
type sender struct {
	client *send.Client
	keys   *secretbox.Keyring
	now    func() time.Time
	log    *slog.Logger

	// opened remembers opened secrets and header values by their row: opening one
	// costs more than signing with it. It is emptied when it is full, not evicted: a secret is
	// cheap to open again.
	mu     sync.RWMutex
	opened map[int64]opening
}

// opening is what a sealed row holds: a secret as what signs with it, or the value
// of a header.
type opening struct {
	signer *webhook.Signer
	value  string // of a header
	origin string // that the value was set for; "" if it does not say
}

const maxOpened = 20_000

func newSender(client *send.Client, keys *secretbox.Keyring, now func() time.Time, log *slog.Logger) *sender {
	return &sender{client: client, keys: keys, now: now, log: log, opened: map[int64]opening{}}
}

// Send makes one attempt. A secret that cannot be opened is a fault of our own
// side: class local, nothing is sent.
func (s *sender) Send(ctx context.Context, t *store.Target, w *store.Work, g lane.Gate) posthorn.Attempt {
	number := w.Progress.Attempts + 1
	signers := make([]*webhook.Signer, 0, len(t.Secrets))
	for i := range t.Secrets {
		if expires := t.Secrets[i].ExpiresAt; !expires.IsZero() && !s.now().Before(expires) {
			continue // the overlap of a rotation is over
		}
		secret, err := s.open(t, &t.Secrets[i], s.openSecret)
		if err != nil {
			s.log.Error("cannot open an endpoint's secret; is its key still in POSTHORN_ENCRYPTION_KEYS?",
				"endpoint", t.Endpoint.Ref, "key_id", t.Secrets[i].KeyID, "err", err)
			return posthorn.Attempt{Number: number, At: s.now(), Class: posthorn.ClassLocal, Detail: "the endpoint's secret cannot be read"}
		}
		signers = append(signers, secret.signer)
	}
	headers, err := s.headers(t)
	if err != nil {
		return posthorn.Attempt{Number: number, At: s.now(), Class: posthorn.ClassLocal, Detail: "the value of one of the endpoint's headers cannot be read"}
	}
	return s.client.Send(ctx, send.Request{
		URL:       t.Endpoint.URL,
		Signers:   signers,
		Headers:   headers,
		EventRef:  w.EventRef(),
		EventType: w.Type,
		Delivery:  w.ID,
		Attempt:   number,
		Test:      w.Kind == posthorn.EventTest,
		Body:      w.Body,
		Timeout:   t.Endpoint.Settings.Timeout(),
		Tenant:    t.Endpoint.Tenant,
		Endpoint:  t.Endpoint.ID,
		Gate:      g,
	})
}

// headers opens the endpoint's own headers. A value goes to the origin that it was set
// for and to no other, however the url came to be another one: by a change at the same time,
// or by somebody who writes the store. A change of the url by the API takes values away.
func (s *sender) headers(t *store.Target) ([]posthorn.Header, error) {
	if len(t.Headers) == 0 {
		return nil, nil
	}
	headers := make([]posthorn.Header, 0, len(t.Headers))
	origin := posthorn.Origin(t.Endpoint.URL)
	for i := range t.Headers {
		h, err := s.open(t, &t.Headers[i].Sealed, s.openHeader)
		if err != nil {
			s.log.Error("cannot open the value of an endpoint's header; is its key still in POSTHORN_ENCRYPTION_KEYS?",
				"endpoint", t.Endpoint.Ref, "key_id", t.Headers[i].KeyID, "err", err)
			return nil, err
		}
		if h.origin != "" && h.origin != origin {
			s.log.Warn("a header is left out: its value was set for another origin than the endpoint's url has; set it again",
				"endpoint", t.Endpoint.Ref, "header", t.Headers[i].Name)
			continue
		}
		headers = append(headers, posthorn.Header{Name: t.Headers[i].Name, Value: h.value})
	}
	return headers, nil
}

// open opens what is sealed, and remembers it.
func (s *sender) open(t *store.Target, sealed *store.Sealed, first func(*store.Target, *store.Sealed) (opening, error)) (opening, error) {
	s.mu.RLock()
	o, ok := s.opened[sealed.ID]
	s.mu.RUnlock()
	if ok {
		return o, nil
	}
	o, err := first(t, sealed)
	if err != nil {
		return opening{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.opened) >= maxOpened {
		clear(s.opened)
	}
	s.opened[sealed.ID] = o
	return o, nil
}

func (s *sender) openSecret(t *store.Target, sealed *store.Sealed) (opening, error) {
	text, err := s.keys.Open(sealed.KeyID, sealed.Box, secretbox.Bind{Kind: api.SecretKind, Tenant: t.Endpoint.Tenant, Endpoint: t.Endpoint.ID})
	if err != nil {
		return opening{}, err
	}
	return opening{signer: webhook.NewSigner(text)}, nil
}

func (s *sender) openHeader(t *store.Target, sealed *store.Sealed) (o opening, err error) {
	o.value, o.origin, err = s.keys.OpenHeader(sealed.KeyID, sealed.Box, t.Endpoint.Tenant, t.Endpoint.ID)
	return o, err
}
