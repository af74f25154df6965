package client

import "context"

type keyOfContext struct{}

// WithIdempotencyKey makes the POST that is made with the context carry this
// Idempotency-Key, in place of one that is made up. The service keeps keys for 24
// hours, by tenant and route: the same request with the same key is answered as it
// was the first time, and does nothing new; another request with it is refused
// (status 422). Use a context for one call.
//
// An event needs no key: [Event.ID] does the same for as long as the event is kept.
func WithIdempotencyKey(ctx context.Context, key string) context.Context {
	return context.WithValue(ctx, keyOfContext{}, key)
}

func idempotencyKey(ctx context.Context) string {
	key, _ := ctx.Value(keyOfContext{}).(string)
	return key
}
