package web

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/iotest"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/share"
	"github.com/posthorn/posthorn/internal/tally"
)

func TestRoomIsSharedAndGivenBack(t *testing.T) {
	room := share.NewPool(16*roomStep, 6*roomStep)
	want := func(h *held, steps int64, code posthorn.Code) {
		t.Helper()
		err := h.upTo(roomFree + steps*roomStep)
		if (err == nil) != (code == 0) || err != nil && posthorn.ErrorCode(err) != code {
			t.Errorf("%v for %d steps: %v", h.who, steps, err)
		}
	}
	of := func(tenant int64) *held { return &held{room: room, who: share.Tenant(tenant)} }
	a, b, c, d := of(1), of(1), of(2), of(3)
	want(a, 4, 0)
	want(a, 4, 0) // it has them already
	want(b, 0, 0) // a small body is free
	want(b, 3, posthorn.RateLimited)
	want(b, 2, 0)
	want(c, 11, posthorn.Unavailable)
	want(c, 6, 0)
	want(d, 4, 0) // who holds nothing finds room
	want(c, 7, posthorn.RateLimited)
	a.give()
	a.give() // twice is once
	c.give()
	d.give()
	want(b, 6, 0)
	b.give()
	if taken, parties := room.Taken(); taken != 0 || parties != 0 {
		t.Errorf("left over: %d of %d", taken, parties)
	}
}

// Bodies of any size, declared or not, in pieces of any size, come out as they
// went in, hold no more than their bytes, and give all of it back.
func TestBodiesComeThroughAsTheyAre(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	room := share.NewPool(1<<30, 1<<30)
	const limit, bodies = 1 << 20, 300
	for i := range bodies {
		body := make([]byte, random.IntN(limit/64*(1+i%80)))
		for j := range body {
			body[j] = byte(random.Uint32())
		}
		var from io.Reader = bytes.NewReader(body)
		switch i % 3 {
		case 1:
			from = iotest.HalfReader(from)
		case 2:
			from = iotest.DataErrReader(from)
		}
		r := httptest.NewRequest(http.MethodPost, "/", from)
		r.ContentLength = int64(len(body))
		if random.IntN(2) == 0 {
			r.ContentLength = -1
		}
		got, release, err := ReadBody(r, limit, room, share.Tenant(int64(i%7)))
		switch {
		case len(body) > limit && posthorn.ErrorCode(err) != posthorn.TooLarge:
			t.Errorf("%d bytes: %v", len(body), err)
		case len(body) <= limit && (err != nil || !bytes.Equal(got, body)):
			t.Errorf("%d bytes came as %d, %v", len(body), len(got), err)
		}
		if err == nil {
			if taken, _ := room.Taken(); taken > int64(len(body)) {
				t.Errorf("a body of %d bytes holds %d", len(body), taken)
			}
			release()
		}
		if taken, _ := room.Taken(); taken != 0 {
			t.Fatalf("%d bytes were not given back", taken)
		}
	}
	tally.Count(t, "memory held by request bodies is bounded and given back", bodies)
}
