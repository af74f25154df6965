package filter

import (
	"bytes"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
)

// maxDataNodes bounds the values within the data that filters see: comparing it
// with itself must be quick.
const maxDataNodes = 20_000

var (
	errNodes = errors.New("data holds more values than filters see")
	errData  = errors.New("data cannot be read")
)

// Data is an event's data. It is parsed when the first filter asks for it, and
// once.
type Data struct {
	raw   []byte
	once  sync.Once
	v     ref.Val
	nodes int
	err   error
	work  atomic.Int64
}

// NewData returns data that is a JSON text. It must not change as long as
// filters look at it.
func NewData(raw []byte) *Data { return &Data{raw: raw} }

func (d *Data) value() (ref.Val, error) {
	d.once.Do(func() {
		d.work.Add(int64(len(d.raw)) * int64(byteWork))
		d.v, d.err = d.parse(jsontext.NewDecoder(bytes.NewReader(d.raw), jsontext.AllowDuplicateNames(true)))
	})
	return d.v, d.err
}

// parse reads a value. Numbers without a fraction are integers, where they fit:
// so ids compare as they are written, and not as the nearest double.
func (d *Data) parse(from *jsontext.Decoder) (ref.Val, error) {
	if d.nodes++; d.nodes > maxDataNodes {
		return nil, errNodes
	}
	token, err := from.ReadToken()
	if err != nil {
		return nil, errData
	}
	switch token.Kind() {
	case '{':
		object := map[string]any{}
		for from.PeekKind() != '}' {
			name, err := from.ReadToken()
			if err != nil {
				return nil, errData
			}
			key := name.String()
			member, err := d.parse(from)
			if err != nil {
				return nil, err
			}
			object[key] = member
		}
		_, err = from.ReadToken()
		return types.NewStringInterfaceMap(types.DefaultTypeAdapter, object), err
	case '[':
		list := []ref.Val{}
		for from.PeekKind() != ']' {
			item, err := d.parse(from)
			if err != nil {
				return nil, err
			}
			list = append(list, item)
		}
		_, err = from.ReadToken()
		return types.NewRefValList(types.DefaultTypeAdapter, list), err
	case '"':
		return types.String(token.String()), nil
	case '0':
		if n, err := strconv.ParseInt(token.String(), 10, 64); err == nil {
			return types.Int(n), nil
		}
		f, err := strconv.ParseFloat(token.String(), 64)
		if err != nil {
			return nil, errData
		}
		return types.Double(f), nil
	case 't', 'f':
		return types.Bool(token.Bool()), nil
	}
	return types.NullValue, nil
}
