// Package jsonpb reads messages from JSON for every protocol that carries it.
//
// It decodes as package protojson does, with two differences. The name of an enum value
// may be given without the prefix that its enum has in common, ACTIVE for
// USER_STATUS_ACTIVE. An error names the field by its path, says what was expected, and
// is bounded whatever the text is. All fields must be known: a misspelt field that is
// dropped in silence becomes a wrong write.
package jsonpb

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// An Error says why a text is not the JSON of a message.
type Error struct {
	Field        string // path, such as metadata["a"] or requests[3].user.tags; empty: the message itself
	Message      string // what was expected
	Line, Column int    // where, from 1; 0: not known
}

// Error returns the field, the message and the place in one line.
func (e *Error) Error() string {
	if e.Field == "" {
		return e.Description()
	}
	return e.Field + ": " + e.Description()
}

// Description returns the message with its place.
func (e *Error) Description() string {
	if e.Line == 0 {
		return e.Message
	}
	return fmt.Sprintf("%s (line %d:%d)", e.Message, e.Line, e.Column)
}

// Unmarshal resets the message and reads it from JSON. An error is an *Error.
func Unmarshal(text []byte, message proto.Message) error {
	if len(bytes.TrimSpace(text)) == 0 {
		return &Error{Message: "must be a JSON object, not empty"}
	}
	err := protojson.Unmarshal(text, message)
	if err == nil {
		return nil
	}
	s := newScan(text, message, placeOf(text, err))
	if len(s.short) == 0 {
		return s.explain(err)
	}
	long := expand(text, s.short)
	if err = protojson.Unmarshal(long, message); err == nil {
		return nil
	}
	target := placeOf(long, err)
	failure := newScan(long, message, target).explain(err)
	if failure.Line > 0 {
		failure.Line, failure.Column = position(text, shortened(target, s.short))
	}
	return failure
}

// A shortName is the name of an enum value without its prefix.
type shortName struct {
	at     int // of its first character in the text
	prefix string
}

// expand inserts the prefixes.
func expand(text []byte, names []shortName) []byte {
	var long []byte
	from := 0
	for _, name := range names {
		long = append(append(long, text[from:name.at]...), name.prefix...)
		from = name.at
	}
	return append(long, text[from:]...)
}

// shortened returns where a place of the expanded text is in the text itself.
func shortened(target int, names []shortName) int {
	for _, name := range names {
		if target > name.at {
			target -= len(name.prefix)
		}
	}
	return max(target, 0)
}

var protojsonPlace = regexp.MustCompile(`\(line (\d+):(\d+)\)`)

// placeOf returns the offset that an error of package protojson names, the end of the
// text for one that names none because the text ends, and -1 for any other.
func placeOf(text []byte, err error) int {
	found := protojsonPlace.FindStringSubmatch(err.Error())
	if found == nil {
		if strings.Contains(err.Error(), "unexpected EOF") {
			return len(text)
		}
		return -1
	}
	line, _ := strconv.Atoi(found[1])
	column, _ := strconv.Atoi(found[2])
	at := 0
	for ; line > 1; line-- {
		at += bytes.IndexByte(text[at:], '\n') + 1
	}
	for ; column > 1 && at < len(text); column-- {
		_, size := utf8.DecodeRune(text[at:])
		at += size
	}
	return at
}

// position is the inverse of placeOf.
func position(text []byte, at int) (line, column int) {
	before := text[:min(at, len(text))]
	last := bytes.LastIndexByte(before, '\n')
	return bytes.Count(before, []byte("\n")) + 1, utf8.RuneCount(before[last+1:]) + 1
}
