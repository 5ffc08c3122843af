package auth

import (
	"bytes"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// isStrictText reports whether a JSON text is valid UTF-8 without unpaired surrogates in its
// escapes. The decoder replaces both by U+FFFD, which would map different subjects to one.
func isStrictText(text []byte) bool {
	if !utf8.Valid(text) {
		return false
	}
	for {
		i := bytes.IndexByte(text, '\\')
		if i < 0 || i+1 == len(text) {
			return true
		}
		text = text[i:]
		first, isUnit := escapedUnit(text)
		switch {
		case !isUnit:
			text = text[2:]
		case !utf16.IsSurrogate(first):
			text = text[unitBytes:]
		default:
			second, isUnit := escapedUnit(text[unitBytes:])
			if !isUnit || utf16.DecodeRune(first, second) == utf8.RuneError {
				return false
			}
			text = text[2*unitBytes:]
		}
	}
}

// unitBytes is the length of an escape such as \u00e9.
const unitBytes = 6

func escapedUnit(text []byte) (unit rune, ok bool) {
	if len(text) < unitBytes || text[0] != '\\' || text[1] != 'u' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(text[2:unitBytes]), 16, 16)
	return rune(n), err == nil
}
