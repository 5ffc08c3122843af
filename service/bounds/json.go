package bounds

import "bytes"

const (
	// objectBytes is the memory of an object: the struct of the largest message, or a map.
	objectBytes = 320
	// memberBytes is the memory of a member of an object, which may be a map entry.
	memberBytes = 144
	// valueBytes is the memory of an element: a header in a slice that grows by doubling,
	// and the rounding of its allocation.
	valueBytes = 56
)

// JSON returns an upper bound of the memory that decoding a JSON message allocates, in bytes.
// It counts braces, colons and commas outside strings, and commas in the value of a possible
// field mask, which is a string with commas.
func JSON(text []byte) int64 {
	total := int64(len(text))
	var name, last []byte // name of the current member; the last string
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			end := stringEnd(text, i)
			last = text[i+1 : end]
			if mayBeMask(name) {
				// A comma may be escaped.
				total += valueBytes * int64(bytes.Count(last, []byte{','})+bytes.Count(last, []byte{'\\'}))
			}
			i = end
		case '{', '[':
			total += objectBytes
			name = nil
		case ':':
			total += memberBytes
			name = last
		case ',':
			total += valueBytes
			name = nil
		}
	}
	return total
}

// stringEnd returns the offset of the closing quote of the string at i, or the end of the text.
func stringEnd(text []byte, i int) int {
	for i++; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return len(text)
}

// mayBeMask reports whether a member may be a field mask, by its encoded name.
func mayBeMask(name []byte) bool {
	return bytes.HasSuffix(name, []byte("ask")) || bytes.IndexByte(name, '\\') >= 0
}
