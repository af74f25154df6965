package posthorn_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
)

func TestIDTextIsAULIDThatOrdersLikeTheID(t *testing.T) {
	var texts []string
	var ids []posthorn.ID
	for _, at := range []time.Time{t0, t0.Add(time.Millisecond), t0.AddDate(40, 0, 0)} {
		for _, node := range []uint8{0, 1, 255} {
			for _, seq := range []uint16{0, 1, posthorn.MaxSequence - 1} {
				id := posthorn.MakeID(at, node, seq)
				if id.Node() != node || id.Sequence() != seq || !id.Time().Equal(at) {
					t.Fatalf("MakeID(%v, %d, %d) holds %v, %d, %d", at, node, seq, id.Time(), id.Node(), id.Sequence())
				}
				ids, texts = append(ids, id), append(texts, id.Text("evt_"))
			}
		}
	}
	if !slices.IsSorted(ids) || !slices.IsSorted(texts) {
		t.Errorf("ids sorted %v, their texts sorted %v; want both", slices.IsSorted(ids), slices.IsSorted(texts))
	}
	for i, s := range texts {
		if len(s) != 30 || strings.ToUpper(s[4:]) != s[4:] {
			t.Errorf("%q is not evt_ and 26 upper-case characters", s)
		}
		if got, ok := posthorn.ParseID("evt_", s); !ok || got != ids[i] {
			t.Errorf("ParseID(%q) = %d, %v; want %d", s, got, ok, ids[i])
		}
		if string(ids[i].AppendText([]byte("x"), "evt_")) != "x"+s {
			t.Errorf("AppendText differs from Text for %q", s)
		}
	}
}

func TestMistypedIDIsUnknown(t *testing.T) {
	s := posthorn.MakeID(t0, 3, 77).Text("dlv_")
	for i := 4; i < len(s); i++ {
		for _, c := range "0123456789ABCDEFGHJKMNPQRSTVWXYZ" {
			if typo := s[:i] + string(c) + s[i+1:]; typo != s {
				if _, ok := posthorn.ParseID("dlv_", typo); ok {
					t.Errorf("ParseID accepts %q, one character off %q", typo, s)
				}
			}
		}
	}
	for _, bad := range []string{"", "dlv_", s[4:], strings.ToLower(s), s + "0", "evt_" + s[4:], "dlv_" + strings.Repeat("Z", 26), "dlv_" + strings.Repeat("0", 26)} {
		if _, ok := posthorn.ParseID("dlv_", bad); ok {
			t.Errorf("ParseID accepts %q", bad)
		}
	}
}

func FuzzParseID(f *testing.F) {
	f.Add(posthorn.MakeID(t0, 0, 0).Text("evt_"))
	f.Fuzz(func(t *testing.T, s string) {
		if id, ok := posthorn.ParseID("evt_", s); ok && id.Text("evt_") != s {
			t.Errorf("ParseID(%q) = %d, which is written %q", s, id, id.Text("evt_"))
		}
	})
}

func TestNewRef(t *testing.T) {
	a, b := posthorn.NewRef("wh_", t0), posthorn.NewRef("wh_", t0)
	if a == b || !posthorn.ValidRef("wh_", a) || posthorn.ValidRef("tok_", a) || posthorn.ValidRef("wh_", strings.ToLower(a)) {
		t.Errorf("NewRef gave %q and %q", a, b)
	}
	if !posthorn.ValidRef("wh_", "wh_01J1C6ZGQ6FQTH2X6M2VS3P0XW") {
		t.Error("the reference's example id is refused")
	}
}

func BenchmarkAppendText(b *testing.B) {
	id, buf := posthorn.MakeID(t0, 0, 9), make([]byte, 0, 64)
	for b.Loop() {
		buf = id.AppendText(buf[:0], "evt_")
	}
}
