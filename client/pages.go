package client

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// maxPage is the largest page that the API gives.
const maxPage = 250

// keeper is a pointer to a resource: what a list is made of.
type keeper[T any] interface {
	*T
	keep(jsontext.Value)
}

// list iterates over a list that answers {"data":[…],"next_cursor":…}. size is
// the page's, 0 for the largest. A list that has no end is [ErrEndless].
func list[T any, P keeper[T]](ctx context.Context, c *Client, path string, query url.Values, size int) iter.Seq2[P, error] {
	return func(yield func(P, error) bool) {
		q := url.Values{}
		for k, v := range query {
			q[k] = v
		}
		if size <= 0 || size > maxPage {
			size = maxPage
		}
		q.Set("limit", strconv.Itoa(size))
		way := newWalk(path)
		for {
			a, err := c.do(ctx, request{method: http.MethodGet, path: path, query: q}, nil)
			if err != nil {
				yield(nil, err)
				return
			}
			var page struct {
				Data       []jsontext.Value `json:"data"`
				NextCursor string           `json:"next_cursor"`
			}
			if err := json.Unmarshal(a.body, &page); err != nil || page.Data == nil {
				yield(nil, &Error{Status: a.status, RequestID: a.header.Get("X-Request-Id"),
					Detail: "the answer is not what Posthorn sends; is the server's URL right?"})
				return
			}
			if err := way.goOn(page.NextCursor); err != nil {
				yield(nil, err)
				return
			}
			if !each(page.Data, yield) || page.NextCursor == "" {
				return
			}
			q.Set("cursor", page.NextCursor)
		}
	}
}

// each yields the resources of a page and reports whether more are wanted.
func each[T any, P keeper[T]](page []jsontext.Value, yield func(P, error) bool) bool {
	for _, data := range page {
		item := P(new(T))
		if err := read(data, item); err != nil {
			yield(nil, err)
			return false
		}
		if !yield(item, nil) {
			return false
		}
	}
	return true
}

// get asks for one resource.
func get[T any, P keeper[T]](ctx context.Context, c *Client, path string) (P, error) {
	return call[T, P](ctx, c, request{method: http.MethodGet, path: path})
}

// call makes a request whose answer is a resource.
func call[T any, P keeper[T]](ctx context.Context, c *Client, r request) (P, error) {
	item := P(new(T))
	if _, err := c.do(ctx, r, item); err != nil {
		return nil, err
	}
	return item, nil
}
