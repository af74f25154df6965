package client

import (
	"bufio"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
)

// ErrEndless is returned when more comes from the server than Posthorn sends: an answer
// or a line without end, a list that goes round or on for ever. Another program answers,
// or something before the server changes its answers. The request is not made again.
var ErrEndless = errors.New("no Posthorn sends that; is the server's URL right, and does nothing before it change its answers?")

// What is read of a server, at most.
const (
	// maxAnswer bounds one answer: a page of 250 deliveries with 50 attempts of 4 KiB
	// each.
	maxAnswer = 64 << 20
	// maxStreamEvent bounds an event of the stream, and each line of it. The largest
	// has 256 KiB of data, which may come in base64.
	maxStreamEvent = 4 << 20
	// maxExportLine bounds a line of an export: an event, or a delivery with its attempts.
	maxExportLine = 16 << 20
	// maxPages bounds a list. With a rare filter the server looks at some thousand
	// resources for a page.
	maxPages = 100_000
	// maxRounds bounds the requests of one cancellation; each cancels some thousand of
	// the million that may wait.
	maxRounds = 10_000
)

// readAll reads an answer to its end.
func readAll(in io.Reader, r request) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(in, maxAnswer+1))
	if err == nil && len(body) > maxAnswer {
		err = fmt.Errorf("client: the answer to %s %s is larger than %d MiB; %w", r.method, r.path, maxAnswer>>20, ErrEndless)
	}
	return body, err
}

// readLine reads one line with its end, of limit bytes at most. What came before an
// error comes with it.
func readLine(in *bufio.Reader, limit int, what string) ([]byte, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		if len(line)+len(part) > limit {
			return nil, tooLong(what, limit)
		}
		line = append(line, part...)
		if err != bufio.ErrBufferFull {
			return line, err
		}
	}
}

func tooLong(what string, limit int) error {
	return fmt.Errorf("client: %s is longer than %d MiB; %w", what, limit>>20, ErrEndless)
}

// walk is the way through the pages of a list.
type walk struct {
	path  string
	pages int
	seed  maphash.Seed
	seen  map[uint64]bool // sums of the cursors: they may be of any size
}

func newWalk(path string) *walk {
	return &walk{path: path, seed: maphash.MakeSeed(), seen: map[uint64]bool{}}
}

// goOn reports whether a list may go on at the cursor that a page ends with; it may not
// where it has been. The empty cursor ends a list.
func (w *walk) goOn(cursor string) error {
	w.pages++
	sum := maphash.String(w.seed, cursor)
	switch {
	case cursor == "":
	case w.seen[sum]:
		return fmt.Errorf("client: the list %s goes round: a page names the same next_cursor as an earlier one; %w", w.path, ErrEndless)
	case w.pages >= maxPages:
		return fmt.Errorf("client: the list %s has more than %d pages; ask for less of it, as by since and until; %w", w.path, maxPages, ErrEndless)
	}
	w.seen[sum] = true
	return nil
}
