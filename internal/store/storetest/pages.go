package storetest

import (
	"bytes"
	"strings"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

var pagePromises = []promise{
	{"a page of deliveries shows as much of answers as is asked for, and ends where it weighs enough", func(w *world) {
		to := w.endpoint()
		answer := []byte(strings.Repeat("é", posthorn.MaxSnippet/2))
		var want []posthorn.ID
		for range 12 {
			id := w.send(to)
			a := fails()
			a.Snippet, a.BodyNote = answer, ""
			w.record(w.result(id, to, 0, a))
			want = append([]posthorn.ID{id}, want...)
		}
		for _, f := range []store.DeliveryFilter{{Tenant: w.tenant.ID}, {Tenant: w.tenant.ID, Endpoint: to.ID}, {Tenant: w.tenant.ID, State: posthorn.ShownState("pending")}, {}} {
			var got []posthorn.ID
			for p := (store.Page{Limit: 50, Snippet: 101, Weight: 2000}); ; {
				list, next, err := w.s.Deliveries(w.Context(), f, p)
				w.ok(err)
				weight := int64(0)
				for i := range list {
					if weight >= p.Weight {
						w.Errorf("%+v: a page of %d deliveries goes on at %d bytes", f, len(list), weight)
					}
					weight += store.WeightOf(&list[i])
					a := list[i].Attempts
					if len(a) != 1 || !bytes.Equal(a[0].Snippet, answer[:100]) || a[0].BodyNote != "truncated" {
						w.Errorf("cut to 101 bytes: %d attempts, %+v", len(a), a)
					}
					got = append(got, list[i].ID)
				}
				if p.Before = next; next == 0 || len(list) == 0 {
					break
				}
			}
			w.same(got, want)
			whole, _, err := w.s.Deliveries(w.Context(), f, store.Page{Limit: 50})
			w.ok(err)
			if len(whole) != len(want) || !bytes.Equal(whole[0].Attempts[0].Snippet, answer) || whole[0].Attempts[0].BodyNote != "" {
				w.Errorf("%d deliveries come whole", len(whole))
			}
		}
	}},
}
