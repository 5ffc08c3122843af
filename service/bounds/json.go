package bounds

import "bytes"

const (
	// objectBytes is what an object takes: the struct of the largest message, or a map.
	objectBytes = 320
	// memberBytes is what a member of an object takes, which may be an entry of a map.
	memberBytes = 144
	// valueBytes is what an element takes: a header in a slice that grows by doubling, and
	// what its allocation is rounded up by.
	valueBytes = 56
)

// JSON returns how many bytes a message in JSON takes when it is decoded, at most. It
// counts braces, colons and commas outside strings. A field mask is a string with commas,
// so those within the value of a member that may be one count too.
func JSON(text []byte) int64 {
	total := int64(len(text))
	var name, last []byte // of the member whose value comes; the last string
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			end := stringEnd(text, i)
			last = text[i+1 : end]
			if mayBeMask(name) {
				// A comma may be written as an escape.
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

// stringEnd returns where the string that begins at i ends: at its quote, or with the text.
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

// mayBeMask reports whether a member may be a field mask, by its name as it is written.
func mayBeMask(name []byte) bool {
	return bytes.HasSuffix(name, []byte("ask")) || bytes.IndexByte(name, '\\') >= 0
}
