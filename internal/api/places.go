package api

import (
	"errors"
	"fmt"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/share"
)

// places are what a node has few of: streams and downloads. Each tenant has a share.
type places struct {
	*share.Pool
	what      string // "streams", as a refusal calls them
	all, each int
	retry     time.Duration
}

func newPlaces(what string, all, each int, retry time.Duration) places {
	return places{share.NewPool(int64(all), int64(each)), what, all, each, retry}
}

// take takes one, which the caller gives back. A refusal says which bound was met: the
// tenant's own (429), its share while most are in use (429), or the node's (503).
func (p *places) take(who share.Party) error {
	err := p.Take(who, 1)
	if err == nil {
		return nil
	}
	refusal := &posthorn.Error{Code: posthorn.RateLimited, RetryAfter: p.retry}
	switch held := p.Held(who); {
	case !errors.Is(err, share.ErrExceeded):
		refusal.Code = posthorn.Unavailable
		refusal.Message = fmt.Sprintf("All %d %s that this node has for all tenants are in use; try again later.", p.all, p.what)
	case held >= int64(p.each):
		refusal.Message = fmt.Sprintf("The tenant has %d %s, and may have %d at a time; end one.", held, p.what, p.each)
	default:
		refusal.Message = fmt.Sprintf("Most of the %d %s that this node has for all tenants are in use, and the tenant has %d; it may have %d again when others have ended. End one, or try again later.",
			p.all, p.what, held, p.each)
	}
	return refusal
}
