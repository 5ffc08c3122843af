// Package jsonpb decodes JSON messages for all protocols.
//
// It differs from package protojson in three points. Names of enum values may omit the common
// prefix of the enum: ACTIVE for USER_STATUS_ACTIVE. A field mask must not name a key that protojson would
// change. Errors have the path of the field and the expected value, and a bounded size. Unknown fields are errors, because a mistyped field name
// that is ignored results in a wrong write.
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

// Error is a decoding error.
type Error struct {
	Field        string // path, such as metadata["a"] or requests[3].user.tags; empty: the message itself
	Message      string // what was expected
	Line, Column int    // position, from 1; 0: unknown
}

// Error returns the field, the message and the position in one line.
func (e *Error) Error() string {
	if e.Field == "" {
		return e.Description()
	}
	return e.Field + ": " + e.Description()
}

// Description returns the message and the position.
func (e *Error) Description() string {
	if e.Line == 0 {
		return e.Message
	}
	return fmt.Sprintf("%s (line %d:%d)", e.Message, e.Line, e.Column)
}

// Unmarshal resets the message and decodes it from JSON. Its errors are of type *Error.
func Unmarshal(text []byte, message proto.Message) error {
	if len(bytes.TrimSpace(text)) == 0 {
		return &Error{Message: "must be a JSON object, not empty"}
	}
	if err := unmarshal(text, message); err != nil {
		return err
	}
	return checkMasks(message.ProtoReflect(), "")
}

func unmarshal(text []byte, message proto.Message) error {
	err := protojson.Unmarshal(text, message)
	if err == nil {
		return nil
	}
	s := newScan(text, message, offsetOf(text, err))
	if len(s.short) == 0 {
		return s.explain(err)
	}
	long := expand(text, s.short)
	if err = protojson.Unmarshal(long, message); err == nil {
		return nil
	}
	target := offsetOf(long, err)
	failure := newScan(long, message, target).explain(err)
	if failure.Line > 0 {
		failure.Line, failure.Column = position(text, shortened(target, s.short))
	}
	return failure
}

// shortName is the name of an enum value without its prefix.
type shortName struct {
	at     int // offset of its first character
	prefix string
}

func expand(text []byte, names []shortName) []byte {
	var long []byte
	from := 0
	for _, name := range names {
		long = append(append(long, text[from:name.at]...), name.prefix...)
		from = name.at
	}
	return append(long, text[from:]...)
}

// shortened maps an offset in the expanded text to the original text.
func shortened(target int, names []shortName) int {
	for _, name := range names {
		if target > name.at {
			target -= len(name.prefix)
		}
	}
	return max(target, 0)
}

var protojsonPosition = regexp.MustCompile(`\(line (\d+):(\d+)\)`)

// offsetOf returns the offset in an error of package protojson: the end of the text for an
// unexpected EOF, -1 if the error has no position.
func offsetOf(text []byte, err error) int {
	found := protojsonPosition.FindStringSubmatch(err.Error())
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

// position is the inverse of offsetOf.
func position(text []byte, at int) (line, column int) {
	before := text[:min(at, len(text))]
	last := bytes.LastIndexByte(before, '\n')
	return bytes.Count(before, []byte("\n")) + 1, utf8.RuneCount(before[last+1:]) + 1
}
