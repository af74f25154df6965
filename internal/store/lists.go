package store

import (
	"cmp"
	"errors"
	"slices"
	"time"
	"unsafe"

	"github.com/posthorn/posthorn"
)

// PageRows bounds the rows that one page of a list reads.
const PageRows = 2000

// ErrPageFull ends the walk over a list's rows: the page is full.
var ErrPageFull = errors.New("page full")

// List collects a page from rows that come newest first.
type List[T any] struct {
	Limit int
	// Rows bounds the rows that are read; 0 for PageRows.
	Rows int
	// Weight bounds what the items weigh; 0 for no bound. The one that reaches it is
	// the last.
	Weight int64
	Items  []T
	// Next is the cursor of the next page; 0 while nothing is known to be left.
	Next posthorn.ID

	read   int
	last   posthorn.ID // of the last row read
	weight int64
}

// Row takes the next row; keep tells whether it belongs to the list. It returns
// ErrPageFull when a row is left that the next page begins with.
func (l *List[T]) Row(id posthorn.ID, item T, keep bool) error {
	if len(l.Items) >= l.Limit || l.Weight > 0 && l.weight >= l.Weight || l.read >= cmp.Or(l.Rows, PageRows) {
		l.Next = l.last
		return ErrPageFull
	}
	l.read, l.last = l.read+1, id
	if keep {
		l.Items = append(l.Items, item)
		if d, ok := any(&item).(*posthorn.Delivery); ok && l.Weight > 0 {
			l.weight += WeightOf(d)
		}
	}
	return nil
}

// WeightOf is about how many bytes of memory a delivery takes.
func WeightOf(d *posthorn.Delivery) int64 {
	n := int64(unsafe.Sizeof(*d)) + int64(len(d.EventRef)+len(d.EndpointRef)+len(d.Type)+len(d.Note))
	for i := range d.Attempts {
		a := &d.Attempts[i]
		n += int64(unsafe.Sizeof(*a)) + int64(len(a.Detail)+len(a.Snippet)+len(a.BodyNote))
		for _, h := range a.Headers {
			n += int64(unsafe.Sizeof(h)) + int64(len(h.Name)+len(h.Value))
		}
	}
	return n
}

// shorten ends a page where its weight is reached.
func shorten(l *List[posthorn.Delivery]) {
	if l.Weight <= 0 {
		return
	}
	n := int64(0)
	for i := range l.Items {
		if n += WeightOf(&l.Items[i]); n >= l.Weight && i+1 < len(l.Items) {
			l.Items = l.Items[:i+1]
			l.Next = l.Items[i].ID
			return
		}
	}
}

// Merge makes one page of two. Where a walk stopped, nothing below is known of
// it, so the page ends there.
func Merge(a, b List[posthorn.Delivery]) List[posthorn.Delivery] {
	a.Items = append(a.Items, b.Items...)
	slices.SortFunc(a.Items, func(x, y posthorn.Delivery) int { return cmp.Compare(y.ID, x.ID) })
	a.Next = max(a.Next, b.Next)
	if i := slices.IndexFunc(a.Items, func(d posthorn.Delivery) bool { return d.ID < a.Next }); i >= 0 {
		a.Items = a.Items[:i]
	}
	if len(a.Items) > a.Limit {
		a.Items = a.Items[:a.Limit]
		a.Next = a.Items[a.Limit-1].ID
	}
	shorten(&a)
	return a
}

// Rows is how many rows a page of so many deliveries may have to read: no more than it
// shows where all that belongs to a tenant, an endpoint or an event is shown.
func (f *DeliveryFilter) Rows(limit int) int {
	if f.Type == "" && f.State == "" && (f.Event == 0 || f.Endpoint == 0) {
		return min(limit, PageRows)
	}
	return PageRows
}

// Selects reports whether the delivery, as users see it, is one of the filter's.
func (f *DeliveryFilter) Selects(d *posthorn.Delivery) bool {
	return (f.Tenant == 0 || d.Tenant == f.Tenant) &&
		(f.Endpoint == 0 || d.Endpoint == f.Endpoint) &&
		(f.Event == 0 || d.Event == f.Event) &&
		(f.Type == "" || f.Type.Match(d.Type)) &&
		(f.State == "" || d.Shown() == f.State) &&
		within(d.CreatedAt, f.Since, f.Until)
}

// Selects reports whether the event is one of the filter's.
func (f *EventFilter) Selects(e *posthorn.Event) bool {
	return (f.Tenant == 0 || e.Tenant == f.Tenant) && (f.Type == "" || f.Type.Match(e.Type)) && within(e.AcceptedAt, f.Since, f.Until) &&
		(f.Source == "" || f.Source == e.Source) && (f.Subject == "" || f.Subject == e.Subject) && (f.SourceID == "" || f.SourceID == e.SourceID)
}

func within(t, since, until time.Time) bool {
	return !t.Before(since) && (until.IsZero() || t.Before(until))
}

// Owners is what decides how an open delivery is shown.
type Owners struct{ Paused, Deleted, Suspended, TenantDeleted bool }

// Show turns a delivery as it is stored into what users see: what is open at a
// deleted endpoint is canceled, even where Sweep has not been yet.
func (o Owners) Show(d *posthorn.Delivery) {
	p := &d.Progress
	if p.State != posthorn.Pending {
		return
	}
	old := d.Reason
	d.Reason = ""                                 // what an extra attempt puts back
	d.Held = o.Suspended || o.Paused && !p.Manual // what is asked for by hand is sent
	if o.Deleted || o.TenantDeleted {
		d.Held = false
		ended := End(*p, posthorn.Canceled, old, GoneReason(o.TenantDeleted))
		d.Progress, d.Reason = ended.Progress, ended.Reason
	}
}

// GoneReason is why a delivery of a deleted endpoint is canceled.
func GoneReason(tenantGone bool) posthorn.Reason {
	if tenantGone {
		return posthorn.ReasonTenantDeleted
	}
	return posthorn.ReasonEndpointDeleted
}
