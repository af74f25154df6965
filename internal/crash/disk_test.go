package crash

import (
	"maps"
	"math/rand/v2"
	"slices"
)

// sector is what a disk writes whole: a write that the power cut short has some
// sectors in their new and some in their old state.
const sector = 512

// disk is what a directory holds as the power may leave it: what was synced
// stays, what was not may be there or not, in any combination. It is built by
// playing a trace.
type disk struct {
	dir     string
	folder  inode             // the directory itself
	now     map[string]*inode // the names as the process sees them
	stay    map[string]*inode // the names that a sync of the directory has kept
	changes []rename          // of names, since then
	unknown []*call           // what was done to files that the trace does not show to be there
}

// rename is a name that was made (to is set) or removed.
type rename struct {
	call *call
	to   *inode
}

// inode is a file. pending are writes that no sync covers, in their order.
type inode struct {
	synced  []byte
	pending []*call
	covers  map[*call][]*call // what syncs under way will have covered
	renames map[*call][]rename
}

// newDisk begins with files that were there, and synced, before the trace.
func newDisk(dir string, files map[string][]byte) *disk {
	d := &disk{now: make(map[string]*inode), dir: dir, folder: inode{renames: make(map[*call][]rename)}}
	for path, content := range files {
		d.now[path] = &inode{synced: slices.Clone(content)}
	}
	d.stay = maps.Clone(d.now)
	return d
}

// play does one step. Files that were not there and are not made in the trace
// (the lock, the shared memory) are left out, as they hold nothing to keep.
func (d *disk) play(s step) {
	if s.begun != nil {
		d.begin(s.begun)
	}
	if s.ended != nil {
		d.end(s.ended)
	}
}

// keeps reports whether a file's content matters after a crash.
func (d *disk) keeps(path string) bool {
	return path == d.dir+"/posthorn.db" || path == d.dir+"/posthorn.db-wal" || path == d.dir+"/posthorn.db-journal"
}

func (d *disk) begin(c *call) {
	f := d.now[c.path]
	switch {
	case c.name == "fsync" || c.name == "fdatasync":
		d.beginSync(c, f)
	case !d.keeps(c.path):
	case c.name == "create" && f == nil:
		f = &inode{}
		d.now[c.path] = f
		d.changes = append(d.changes, rename{c, f})
	case f == nil:
		d.unknown = append(d.unknown, c)
	case c.name == "pwrite64" || c.name == "ftruncate":
		f.pending = append(f.pending, c)
	}
}

func (d *disk) beginSync(c *call, f *inode) {
	if c.path == d.dir {
		d.folder.renames[c] = slices.Clone(d.changes)
		return
	}
	if f == nil {
		return
	}
	if f.covers == nil {
		f.covers = make(map[*call][]*call)
	}
	for _, w := range f.pending {
		if w.end < c.begin {
			f.covers[c] = append(f.covers[c], w)
		}
	}
}

func (d *disk) end(c *call) {
	if c.end == never {
		return
	}
	f := d.now[c.path]
	if c.path == d.dir {
		f = &d.folder
	}
	switch c.name {
	case "pwrite64", "ftruncate":
		if f != nil && c.result < 0 {
			f.pending = slices.DeleteFunc(f.pending, func(w *call) bool { return w == c })
		} else if f != nil && c.name == "pwrite64" {
			c.data = c.data[:c.result]
		}
	case "unlink", "unlinkat":
		if f != nil && c.result == 0 {
			delete(d.now, c.path)
			d.changes = append(d.changes, rename{c, nil})
		}
	case "fsync", "fdatasync":
		if f == nil || c.result != 0 {
			return
		}
		for _, w := range f.covers[c] {
			if i := slices.Index(f.pending, w); i >= 0 {
				f.synced = write(f.synced, w, nil)
				f.pending = slices.Delete(f.pending, i, i+1)
			}
		}
		delete(f.covers, c)
		for _, r := range f.renames[c] {
			if i := slices.Index(d.changes, r); i >= 0 {
				d.stay = apply(d.stay, r)
				d.changes = slices.Delete(d.changes, i, i+1)
			}
		}
		delete(f.renames, c)
	}
}

func apply(names map[string]*inode, r rename) map[string]*inode {
	if r.to == nil {
		delete(names, r.call.path)
	} else {
		names[r.call.path] = r.to
	}
	return names
}

// write applies a write or a truncation; kept says which sectors reached the
// disk, nil all.
func write(b []byte, c *call, kept func() bool) []byte {
	if c.name == "ftruncate" {
		return resize(b, int(c.offset))
	}
	for at := 0; at < len(c.data); {
		offset := int(c.offset) + at
		n := min(sector-offset%sector, len(c.data)-at)
		if kept == nil || kept() {
			if offset+n > len(b) {
				b = resize(b, offset+n)
			}
			copy(b[offset:], c.data[at:at+n])
		}
		at += n
	}
	return b
}

func resize(b []byte, n int) []byte {
	if n <= len(b) {
		return b[:n]
	}
	return append(b, make([]byte, n-len(b))...)
}

// fate says what becomes of what no sync covers.
type fate struct {
	name string
	// name and write report whether a change is on disk; sectors of a write are
	// decided one by one when torn.
	names, writes func() bool
	torn          bool
}

// fates are the ways in which a disk may come back.
func fates(random *rand.Rand) []fate {
	yes, no := func() bool { return true }, func() bool { return false }
	some := func(percent int) func() bool { return func() bool { return random.IntN(100) < percent } }
	left := random.IntN(12)
	first := func() bool { left--; return left >= 0 }
	return []fate{
		{"forgotten", no, no, false},
		{"all there", yes, yes, false},
		{"the first few there", some(50), first, false},
		{"some there", some(50), some(50), false},
		{"torn", some(50), some(50), true},
		{"torn, nearly all there", some(90), some(95), true},
	}
}

// after returns the files that are found when the power is back.
func (d *disk) after(f fate) map[string][]byte {
	names := maps.Clone(d.stay)
	for _, r := range d.changes {
		if f.names() {
			apply(names, r)
		}
	}
	files := make(map[string][]byte)
	for _, path := range slices.Sorted(maps.Keys(names)) { // in one order, for the seed's sake
		node := names[path]
		b := slices.Clone(node.synced)
		for _, w := range node.pending {
			if f.torn && w.name == "pwrite64" {
				b = write(b, w, f.writes)
			} else if f.writes() {
				b = write(b, w, nil)
			}
		}
		files[path] = b
	}
	return files
}
