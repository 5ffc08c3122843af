package bounds

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Binary returns what is to be decoded of a message in binary form: all of it, or what
// a rule refuses. It is an error if there are more elements than there may be of
// something that no rule is about. A message of another name passes as it is.
func (b *Bounds) Binary(message protoreflect.FullName, data []byte) ([]byte, error) {
	s := b.shapes[message]
	if s == nil || len(s.byNumber) == 0 {
		return data, nil
	}
	kept, _, err := s.cut(data, make([]int, s.counters))
	return kept, err
}

// cut returns what is kept of a message, and whether that is all. Where there is too much
// of something the rest of the message is dropped, but of an element of a list only the
// rest of the element: such elements may be refused one by one.
func (s *shape) cut(data []byte, counts []int) (kept []byte, whole bool, err error) {
	var out []byte // what is kept, once that is not just the beginning of the data
	for at := 0; at < len(data); {
		number, kind, n := protowire.ConsumeTag(data[at:])
		if n < 0 {
			return rejoin(out, data, at), true, nil
		}
		size := protowire.ConsumeFieldValue(number, kind, data[at+n:])
		if size < 0 {
			return rejoin(out, data, at), true, nil
		}
		end := at + n + size
		f := s.byNumber[number]
		if f == nil || kind != f.wire && kind != protowire.BytesType {
			if at = end; out != nil {
				out = append(out, data[end-n-size:end]...)
			}
			continue
		}
		instead, last, err := f.look(data[:end], data[at+n:end], kind, counts)
		switch {
		case err != nil:
			return nil, false, err
		case instead != nil:
			if out == nil {
				out = slices.Clone(data[:at])
			}
			out = protowire.AppendBytes(protowire.AppendTag(out, number, kind), instead)
		case out != nil:
			out = append(out, data[at:end]...)
		case last:
			return data[:end], false, nil
		}
		if last {
			return out, false, nil
		}
		at = end
	}
	return rejoin(out, data, len(data)), true, nil
}

// rejoin returns what is kept, with the data from a place on.
func rejoin(out, data []byte, from int) []byte {
	if out == nil {
		return data
	}
	return append(out, data[from:]...)
}

// look counts one field, whose value is the last of what the message holds so far.
// instead, if it is not nil, is what is kept of its content; last: nothing behind it is.
func (f *field) look(soFar, value []byte, kind protowire.Type, counts []int) (instead []byte, last bool, err error) {
	content := value
	if kind == protowire.BytesType {
		content, _ = protowire.ConsumeBytes(value)
	}
	if f.max > 0 {
		elements := 1
		if kind != f.wire { // packed
			var fit int
			if elements, fit = f.packedElements(content, f.max+1-counts[f.counter]); fit < len(content) {
				instead = content[:fit]
			}
		}
		if counts[f.counter] += elements; counts[f.counter] > f.max {
			return instead, true, f.overflow(soFar)
		}
	}
	if f.child == nil || kind != protowire.BytesType {
		return nil, false, nil
	}
	if f.max > 0 {
		counts = make([]int, f.child.counters)
	}
	kept, whole, err := f.child.cut(content, counts)
	if len(kept) < len(content) {
		instead = kept
	}
	return instead, !whole && f.max == 0, err
}

// packedElements counts at most so many elements, and says how many bytes they take.
func (f *field) packedElements(content []byte, most int) (elements, size int) {
	for size < len(content) && elements < most {
		n := protowire.ConsumeFieldValue(1, f.wire, content[size:])
		if n < 0 {
			return elements, len(content) // the decoder will say what is wrong
		}
		size += n
		elements++
	}
	return elements, size
}

// overflow says whether what is kept is certain to be refused.
func (f *field) overflow(soFar []byte) error {
	switch {
	case !f.ruled:
		return fmt.Errorf("%s: more than %d elements", f.path, f.max)
	case f.isMap && distinctKeys(soFar, f.number) <= f.max:
		// Entries with the same key are one pair, and might pass as a part.
		return fmt.Errorf("%s: more than %d entries, some with the same key", f.path, f.max)
	}
	return nil
}

// distinctKeys counts the keys of a map within its message.
func distinctKeys(message []byte, of protowire.Number) int {
	keys := make(map[string]struct{})
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		size := protowire.ConsumeFieldValue(number, kind, message[n:])
		if number == of && kind == protowire.BytesType {
			entry, _ := protowire.ConsumeBytes(message[n:])
			keys[string(keyOf(entry))] = struct{}{}
		}
		message = message[n+size:]
	}
	return len(keys)
}

// keyOf returns the last key of an entry, as it is encoded.
func keyOf(entry []byte) (key []byte) {
	for len(entry) > 0 {
		number, kind, n := protowire.ConsumeTag(entry)
		if n < 0 {
			return key
		}
		size := protowire.ConsumeFieldValue(number, kind, entry[n:])
		if size < 0 {
			return key
		}
		if number == 1 {
			key = entry[n : n+size]
		}
		entry = entry[n+size:]
	}
	return key
}
