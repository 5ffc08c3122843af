package bounds

import (
	"bytes"
	"encoding/json"
	"fmt"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// JSON is Binary for a message in JSON. Members that the message does not have are
// certain to be refused as well, so nothing is kept behind the first of them.
func (b *Bounds) JSON(message protoreflect.FullName, text []byte) ([]byte, error) {
	s := b.shapes[message]
	if s == nil {
		return text, nil
	}
	scan := &jsonScan{text: text}
	scan.value(&field{child: s}, make([]int, s.counters))
	switch {
	case scan.err != nil:
		return nil, scan.err
	case scan.cut:
		scan.close(0)
		return scan.out, nil
	case scan.out != nil:
		return append(scan.out, text[scan.from:]...), nil
	}
	return text, nil
}

// jsonScan goes through JSON as far as it has to. Text that is none it leaves to the
// decoder: it stops, and nothing is cut.
type jsonScan struct {
	text []byte
	at   int
	open []byte // what closes the objects and arrays around the place
	cut  bool   // the rest is dropped, of the element or of all
	err  error

	out  []byte // what is kept up to from; nil: all
	from int
}

// close keeps what was read up to the place, and closes what is open down to a depth.
func (j *jsonScan) close(depth int) {
	j.out = append(j.out, j.text[j.from:j.at]...)
	for i := len(j.open) - 1; i >= depth; i-- {
		j.out = append(j.out, j.open[i])
	}
}

// value passes over the value of a field, and reports whether to go on behind it.
func (j *jsonScan) value(f *field, counts []int) bool {
	switch j.next() {
	case '{':
		switch {
		case f != nil && f.isMap:
			return j.elements('}', f, counts)
		case f != nil && f.child != nil && f.max == 0 && !f.isMask:
			return j.members(f.child, counts)
		}
		return j.skipNested()
	case '[':
		if f != nil && f.max > 0 && !f.isMap {
			return j.elements(']', f, counts)
		}
		return j.skipNested()
	case '"':
		if f != nil && f.isMask && f.max == 0 {
			return j.mask(f.child, counts)
		}
		_, ok := j.str()
		return ok
	case 0:
		return false
	}
	return j.scalar()
}

// members passes over the members of a message.
func (j *jsonScan) members(s *shape, counts []int) bool {
	return j.each('}', func() bool {
		name, ok := j.name()
		if !ok {
			return false
		}
		f := s.byName[name]
		if !j.value(f, counts) {
			return false
		}
		j.cut = f == nil
		return !j.cut
	})
}

// elements passes over the elements of a list, or the entries of a map.
func (j *jsonScan) elements(end byte, f *field, counts []int) bool {
	return j.each(end, func() bool {
		if f.isMap {
			if _, ok := j.name(); !ok {
				return false
			}
		}
		own := counts
		if f.child != nil {
			own = make([]int, f.child.counters)
		}
		depth := len(j.open)
		if !j.value(f.element, own) && !j.rest(depth, f) {
			return false
		}
		return j.count(f, counts)
	})
}

// rest drops what is left of an element that was cut, and reports whether to go on
// behind it.
func (j *jsonScan) rest(depth int, list *field) bool {
	if !j.cut || j.err != nil || list.child == nil {
		return false
	}
	j.close(depth)
	ok := j.skip(len(j.open) - depth)
	j.open, j.from, j.cut = j.open[:depth], j.at, false
	return ok
}

func (j *jsonScan) count(f *field, counts []int) bool {
	if counts[f.counter]++; counts[f.counter] <= f.max {
		return true
	}
	if !f.ruled {
		j.err = fmt.Errorf("%s: more than %d elements", f.path, f.max)
	}
	j.cut = true
	return false
}

// mask passes over a field mask, which has its paths in one text.
func (j *jsonScan) mask(s *shape, counts []int) bool {
	text, ok := j.str()
	if !ok {
		return false
	}
	paths := s.byName["paths"]
	if counts[paths.counter] += 1 + bytes.Count(text, []byte{','}); counts[paths.counter] > paths.max {
		j.err, j.cut = fmt.Errorf("%s: more than %d elements", paths.path, paths.max), true
	}
	return !j.cut
}

// each passes over what is between brackets, with commas between.
func (j *jsonScan) each(end byte, one func() bool) bool {
	j.at++
	j.open = append(j.open, end)
	if j.next() != end {
		for {
			if !one() {
				return false
			}
			sign := j.next()
			if sign != ',' && sign != end {
				return false
			}
			if sign == end {
				break
			}
			j.at++
		}
	}
	j.at++
	j.open = j.open[:len(j.open)-1]
	return true
}

// name passes over the name of a member and the colon behind it.
func (j *jsonScan) name() (name string, ok bool) {
	if j.next() != '"' {
		return "", false
	}
	quoted, ok := j.str()
	if !ok || j.next() != ':' {
		return "", false
	}
	j.at++
	if bytes.IndexByte(quoted, '\\') >= 0 {
		return name, json.Unmarshal(quoted, &name) == nil
	}
	return string(quoted[1 : len(quoted)-1]), true
}

// str passes over a string, and gives it with its quotes.
func (j *jsonScan) str() (quoted []byte, ok bool) {
	for i := j.at + 1; i < len(j.text); i++ {
		switch j.text[i] {
		case '\\':
			i++
		case '"':
			quoted = j.text[j.at : i+1]
			j.at = i + 1
			return quoted, true
		}
	}
	return nil, false
}

// scalar passes over a number or a word.
func (j *jsonScan) scalar() bool {
	n := bytes.IndexAny(j.text[j.at:], ",]} \t\r\n")
	if n < 0 {
		n = len(j.text) - j.at
	}
	j.at += n
	return n > 0
}

// skipNested passes over an object or an array, whatever it holds.
func (j *jsonScan) skipNested() bool {
	j.at++
	return j.skip(1)
}

// skip passes over all that is left of so many objects and arrays.
func (j *jsonScan) skip(depth int) bool {
	for j.at < len(j.text) {
		switch j.text[j.at] {
		case '"':
			if _, ok := j.str(); !ok {
				return false
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		}
		j.at++
		if depth == 0 {
			return true
		}
	}
	return false
}

// next passes over white space and gives the sign behind it, 0 at the end.
func (j *jsonScan) next() byte {
	for ; j.at < len(j.text); j.at++ {
		switch c := j.text[j.at]; c {
		case ' ', '\t', '\r', '\n':
		default:
			return c
		}
	}
	return 0
}
