package jsonpb

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

const (
	maxDepth = 200 // of a scan; protojson fails at fewer levels of known fields
	maxEcho  = 100 // bytes of client text in one error
)

// scan finds the field at the offset at which package protojson rejected the text. The text
// before the offset is valid JSON of the message.
type scan struct {
	text   []byte
	target int
	at     int
	depth  int

	found hit
	// short lists the enum values without a prefix. They are collected from the whole text if
	// the target is one of them.
	short []shortName
}

type hit struct {
	kind     hitKind
	path     string
	expected string
}

type hitKind int

const (
	hitNothing hitKind = iota
	hitValue           // of the field at the path
	hitName            // of a member, at the path
	hitSyntax          // invalid JSON
)

// slot is the expected type of a value.
type slot struct {
	message protoreflect.MessageDescriptor // of the whole text; nil: see field
	field   protoreflect.FieldDescriptor   // nil, too: unknown
	element bool                           // of a repeated field
}

// newScan scans the text up to the target.
func newScan(text []byte, message proto.Message, target int) *scan {
	s := &scan{text: text, target: target}
	if target >= 0 && s.value(slot{message: message.ProtoReflect().Descriptor()}, "") {
		s.found = hit{kind: hitSyntax} // after the message
	}
	return s
}

// explain returns the error at the target.
func (s *scan) explain(err error) *Error {
	e := &Error{Field: s.found.path, Message: s.found.expected}
	if s.target >= 0 {
		e.Line, e.Column = position(s.text, s.target)
	}
	text := err.Error()
	switch {
	case s.target < 0 && strings.Contains(text, "recursion"):
		e.Message = "is nested too deeply"
	case s.found.kind == hitName && strings.Contains(text, "duplicate"):
		e.Message = "duplicate name"
	case s.found.kind == hitName:
		e.Message = "unknown field"
	case s.found.kind == hitValue && strings.Contains(text, "UTF-8"):
		e.Message = "must be UTF-8"
	case s.found.kind == hitValue && s.isToken(s.target):
	case s.target < 0 || s.found.kind == hitNothing:
		e.Message = "invalid JSON"
	default:
		e.Field, e.Message = "", "invalid JSON: "+s.syntax()
	}
	return e
}

// syntax describes the invalid JSON at the target.
func (s *scan) syntax() string {
	rest := bytes.TrimLeft(s.text[min(s.target, len(s.text)):], " \t\r\n")
	if len(rest) == 0 {
		return "unexpected end"
	}
	before := bytes.TrimRight(s.text[:s.target], " \t\r\n")
	if (rest[0] == '}' || rest[0] == ']') && bytes.HasSuffix(before, []byte(",")) {
		return "trailing comma before " + string(rest[0])
	}
	r, _ := utf8.DecodeRune(rest)
	return "unexpected " + strconv.QuoteRune(r)
}

// isToken reports whether a JSON token starts at the offset.
func (s *scan) isToken(at int) bool {
	if at >= len(s.text) {
		return false
	}
	switch s.text[at] {
	case '{', '[':
		return true
	case '"':
		return json.Valid(s.text[at:s.stringEnd(at)])
	}
	return json.Valid(s.text[at:s.literalEnd(at)])
}

// hit ends the scan.
func (s *scan) hit(kind hitKind, path, expected string) bool {
	s.found = hit{kind, path, expected}
	return false
}

// value scans a value and reports whether the scan continues after it.
func (s *scan) value(in slot, path string) bool {
	if s.depth++; s.depth > maxDepth {
		return false
	}
	defer func() { s.depth-- }()
	s.space()
	if s.at >= s.target && !s.shortEnum(in) {
		return s.hit(hitValue, path, in.expected())
	}
	switch s.peek() {
	case 0:
		return false
	case '{':
		return s.object(in, path)
	case '[':
		return s.array(in, path)
	case '"':
		end := s.stringEnd(s.at)
		if end > s.target && len(s.short) == 0 {
			return s.hit(hitValue, path, in.expected())
		}
		if len(s.short) > 0 && s.short[len(s.short)-1].at != s.at+1 {
			s.shortEnum(in)
		}
		s.at = end
	default:
		s.at = s.literalEnd(s.at)
	}
	return true
}

// shortEnum records the next value if it is an enum name without its prefix. After the first
// one the scan continues to the end of the text.
func (s *scan) shortEnum(in slot) bool {
	if in.field == nil || in.field.Kind() != protoreflect.EnumKind || s.peek() != '"' {
		return false
	}
	name, err := strconv.Unquote(string(s.text[s.at:s.stringEnd(s.at)]))
	value := EnumValue(in.field.Enum(), name)
	if err != nil || value == nil || string(value.Name()) == name {
		return false
	}
	s.short = append(s.short, shortName{at: s.at + 1, prefix: enumPrefix(in.field.Enum())})
	s.target = len(s.text) + 1
	return true
}

func (s *scan) object(in slot, path string) bool {
	s.at++
	for {
		s.space()
		switch c := s.peek(); {
		case c == '"' && s.at == s.target:
			return s.hit(hitName, memberPath(in, path, s.name()), "")
		case s.at >= s.target || c == 0:
			return s.hit(hitSyntax, "", "")
		case c == '}':
			s.at++
			return true
		case c == ',':
			s.at++
			continue
		case c != '"':
			return false
		}
		name := s.name()
		s.at = s.stringEnd(s.at)
		if s.space(); s.at >= s.target || s.peek() != ':' {
			return s.hit(hitSyntax, "", "")
		}
		s.at++
		if !s.value(in.member(name), memberPath(in, path, name)) {
			return false
		}
	}
}

func (s *scan) array(in slot, path string) bool {
	s.at++
	element := slot{}
	if in.field != nil && in.field.IsList() && !in.element {
		element = slot{field: in.field, element: true}
	}
	for i := 0; ; {
		s.space()
		switch c := s.peek(); {
		case c == 0, (c == ']' || c == ',') && s.at >= s.target:
			return s.hit(hitSyntax, "", "")
		case c == ']':
			s.at++
			return true
		case c == ',':
			s.at++
			continue
		}
		if !s.value(element, path+"["+strconv.Itoa(i)+"]") {
			return false
		}
		i++
	}
}

// member returns the slot of an object member.
func (in slot) member(name string) slot {
	message := in.message
	switch {
	case in.field == nil:
	case in.field.IsMap() && !in.element:
		return slot{field: in.field.MapValue()}
	case !in.field.IsList() || in.element:
		message = in.field.Message()
	}
	if message == nil {
		return slot{}
	}
	field := message.Fields().ByJSONName(name)
	if field == nil {
		field = message.Fields().ByTextName(name)
	}
	return slot{field: field}
}

// memberPath returns the path of a member, with the proto name of the field.
func memberPath(in slot, path, name string) string {
	if in.field != nil && in.field.IsMap() {
		return path + "[" + strconv.Quote(echo(name)) + "]"
	}
	if field := in.member(name).field; field != nil {
		name = string(field.Name())
	}
	return strings.TrimPrefix(path+"."+echo(name), ".")
}

func (in slot) expected() string {
	switch {
	case in.message != nil:
		return "must be a JSON object"
	case in.field == nil:
		return "invalid JSON"
	case in.element:
		return ExpectedElement(in.field)
	}
	return Expected(in.field)
}

func (s *scan) space() {
	for s.at < len(s.text) && strings.IndexByte(" \t\r\n", s.text[s.at]) >= 0 {
		s.at++
	}
}

// peek returns the next character, 0 at the end.
func (s *scan) peek() byte {
	if s.at >= len(s.text) {
		return 0
	}
	return s.text[s.at]
}

// name returns the string at the current offset without consuming it.
func (s *scan) name() string {
	quoted := s.text[s.at:s.stringEnd(s.at)]
	var name string
	if json.Unmarshal(quoted, &name) != nil {
		return strings.Trim(string(quoted), `"`)
	}
	return name
}

// stringEnd returns the offset after the string that starts at an offset.
func (s *scan) stringEnd(at int) int {
	for i := at + 1; i < len(s.text); i++ {
		switch s.text[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(s.text)
}

// literalEnd returns the offset after a number or a word. It advances at least one character.
func (s *scan) literalEnd(at int) int {
	end := bytes.IndexAny(s.text[at:], ",:{}[]\" \t\r\n")
	if end < 0 {
		return len(s.text)
	}
	return at + max(end, 1)
}

// echo bounds client text for an error.
func echo(text string) string {
	if len(text) > maxEcho {
		text = text[:maxEcho] + "…"
	}
	return strings.ToValidUTF8(text, "\uFFFD")
}
