package sqlite

import (
	"encoding/binary"
	"fmt"
)

// packIDs makes a row of ids, which ascend and are not none.
func packIDs(ids []int64) (last int64, blob []byte) {
	last = ids[len(ids)-1]
	blob = make([]byte, 0, 4*len(ids))
	for i := len(ids) - 1; i > 0; i-- {
		blob = binary.AppendUvarint(blob, uint64(ids[i]-ids[i-1]))
	}
	return last, blob
}

// appendUnpacked appends the ids of a row, highest first.
func appendUnpacked(ids []int64, last int64, blob []byte) ([]int64, error) {
	ids = append(ids, last)
	for len(blob) > 0 {
		below, n := binary.Uvarint(blob)
		if n <= 0 || below == 0 || below > uint64(last) {
			return nil, fmt.Errorf("%w: a row of postings cannot be read", ErrCorrupt)
		}
		last -= int64(below)
		ids, blob = append(ids, last), blob[n:]
	}
	return ids, nil
}
