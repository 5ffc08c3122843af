package rest

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/yourorg/userservice/service/user"
)

const (
	maxViolations = 20  // told at once
	maxEcho       = 100 // bytes of a caller's own text that an error repeats

	timestampName = protoreflect.FullName("google.protobuf.Timestamp")
	fieldMaskName = protoreflect.FullName("google.protobuf.FieldMask")
)

// query reads a query into a request message. It is stricter than the transcoder,
// which lets a parameter win over the path, takes the last of several values in any
// order, and answers an unknown name with 500. What it has read it gives in a form
// that leaves the transcoder no choice.
type query struct {
	message protoreflect.Message
	// fixed are fields that the path or the body gives.
	fixed []protoreflect.FieldDescriptor

	canonical  url.Values
	seen       map[protoreflect.FieldDescriptor]string
	violations []user.Violation
}

// readQuery reads the query into the message. Where there are violations, the
// canonical form is not complete.
func readQuery(raw string, message protoreflect.Message, fixed ...protoreflect.FieldDescriptor) (url.Values, []user.Violation) {
	if raw == "" {
		return url.Values{}, nil
	}
	values, err := url.ParseQuery(raw)
	if err != nil {
		return nil, []user.Violation{{Field: "query", Message: "the query of the URL is not well-formed"}}
	}
	q := &query{
		message: message, fixed: fixed,
		canonical: url.Values{}, seen: make(map[protoreflect.FieldDescriptor]string),
	}
	names := make([]string, 0, len(values))
	for name := range values {
		names = append(names, name)
	}
	slices.Sort(names) // so that the answer is always the same
	for _, name := range names {
		q.parameter(name, values[name])
	}
	return q.canonical, q.violations
}

func (q *query) reject(field, message string) {
	if len(q.violations) < maxViolations {
		q.violations = append(q.violations, user.Violation{Field: echo(field), Message: message})
	}
}

// parameter reads all values that came under one name.
func (q *query) parameter(name string, values []string) {
	if mask, ok := strings.CutSuffix(name, ".paths"); ok {
		if field := fieldNamed(q.message, mask); field != nil && isMessage(field, fieldMaskName) {
			q.mask(field, values, false)
			return
		}
	}
	field := fieldNamed(q.message, name)
	switch {
	case field == nil:
		q.reject(name, "there is no such parameter")
		return
	case slices.Contains(q.fixed, field):
		q.reject(string(field.Name()), "is given elsewhere in the request and must not be in the query")
		return
	case q.seen[field] != "":
		q.reject(string(field.Name()), "is given twice, as "+q.seen[field]+" and as "+name)
		return
	}
	q.seen[field] = name
	switch {
	case isMessage(field, fieldMaskName):
		q.mask(field, values, true)
	case field.IsList():
		q.list(field, values)
	case field.IsMap():
		q.reject(string(field.Name()), "cannot be given in the query")
	case len(values) > 1:
		q.reject(string(field.Name()), "is given more than once")
	default:
		value, text, problem := parseScalar(field, values[0])
		if problem != "" {
			q.reject(string(field.Name()), problem)
			return
		}
		q.message.Set(field, value)
		q.canonical.Set(string(field.Name()), text)
	}
}

// list reads a repeated field, whose values may come one by one or with commas; no
// value that the service takes has a comma in it.
func (q *query) list(field protoreflect.FieldDescriptor, values []string) {
	list := q.message.Mutable(field).List()
	for _, joined := range values {
		for text := range strings.SplitSeq(joined, ",") {
			value, text, problem := parseScalar(field, text)
			if problem != "" {
				q.reject(string(field.Name())+"["+strconv.Itoa(list.Len())+"]", problem)
				return
			}
			list.Append(value)
			q.canonical.Add(string(field.Name()), text)
		}
	}
}

// mask reads a field mask, with commas or path by path. protojson turns a whole path
// from camel case to snake case, which would make another key of metadata.someKey,
// and takes no metadata.some_key at all; so only the field's name is turned, and the
// paths are handed on one by one.
func (q *query) mask(field protoreflect.FieldDescriptor, values []string, commas bool) {
	name := string(field.Name()) + ".paths"
	mask := &fieldmaskpb.FieldMask{Paths: q.canonical[name]}
	for _, joined := range values {
		paths := []string{joined}
		if commas {
			paths = strings.Split(joined, ",")
		}
		for _, path := range paths {
			if path == "" || !utf8.ValidString(path) {
				q.reject(string(field.Name()), "must be names of fields")
				return
			}
			head, rest, nested := strings.Cut(path, ".")
			head = snakeCase(head)
			if nested {
				head += "." + rest
			}
			mask.Paths = append(mask.Paths, head)
		}
	}
	q.message.Set(field, protoreflect.ValueOfMessage(mask.ProtoReflect()))
	q.canonical[name] = mask.Paths
}

const cannot = "cannot be given here"

// parseScalar reads one value; text is its canonical form, problem says what was
// expected.
func parseScalar(field protoreflect.FieldDescriptor, in string) (value protoreflect.Value, text, problem string) {
	switch field.Kind() {
	case protoreflect.StringKind:
		if !utf8.ValidString(in) {
			return value, "", "must be UTF-8"
		}
		return protoreflect.ValueOfString(in), in, ""
	case protoreflect.BoolKind:
		if in != "true" && in != "false" {
			return value, "", "must be true or false"
		}
		return protoreflect.ValueOfBool(in == "true"), in, ""
	case protoreflect.Int32Kind:
		n, err := strconv.ParseInt(in, 10, 32)
		if err != nil {
			return value, "", "must be a whole number of 32 bits"
		}
		return protoreflect.ValueOfInt32(int32(n)), strconv.FormatInt(n, 10), ""
	case protoreflect.Int64Kind:
		n, err := strconv.ParseInt(in, 10, 64)
		if err != nil {
			return value, "", "must be a whole number of 64 bits"
		}
		return protoreflect.ValueOfInt64(n), strconv.FormatInt(n, 10), ""
	case protoreflect.EnumKind:
		return parseEnum(field, in)
	case protoreflect.MessageKind:
		if field.Message().FullName() == timestampName {
			return parseTime(in)
		}
		return value, "", cannot
	default:
		return value, "", cannot
	}
}

func parseEnum(field protoreflect.FieldDescriptor, in string) (value protoreflect.Value, text, problem string) {
	found := field.Enum().Values().ByName(protoreflect.Name(in))
	if n, err := strconv.ParseInt(in, 10, 32); err == nil {
		found = field.Enum().Values().ByNumber(protoreflect.EnumNumber(n))
	}
	if found == nil {
		return value, "", "must be the name of a " + string(field.Enum().Name())
	}
	return protoreflect.ValueOfEnum(found.Number()), string(found.Name()), ""
}

func parseTime(in string) (value protoreflect.Value, text, problem string) {
	// An unescaped + of a zone arrives as a space, which no time has.
	at, err := time.Parse(time.RFC3339Nano, strings.ReplaceAll(in, " ", "+"))
	stamp := timestamppb.New(at)
	if err != nil || stamp.CheckValid() != nil {
		return value, "", "must be a time as in RFC 3339, such as 2026-01-31T12:34:56Z"
	}
	return protoreflect.ValueOfMessage(stamp.ProtoReflect()), at.UTC().Format(time.RFC3339Nano), ""
}

// fieldNamed finds a field by its name in the proto or in JSON.
func fieldNamed(message protoreflect.Message, name string) protoreflect.FieldDescriptor {
	fields := message.Descriptor().Fields()
	if field := fields.ByJSONName(name); field != nil {
		return field
	}
	return fields.ByName(protoreflect.Name(name))
}

func isMessage(field protoreflect.FieldDescriptor, name protoreflect.FullName) bool {
	return field.Message() != nil && !field.IsList() && field.Message().FullName() == name
}

// snakeCase turns a name from JSON to the proto's; one in the proto's form stays.
func snakeCase(name string) string {
	var b strings.Builder
	for _, c := range []byte(name) {
		if 'A' <= c && c <= 'Z' {
			b.WriteByte('_')
			c += 'a' - 'A'
		}
		b.WriteByte(c)
	}
	return b.String()
}

// echo makes a caller's own text fit to be repeated.
func echo(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) > maxEcho {
		text = strings.ToValidUTF8(text[:maxEcho], "") + "…"
	}
	return text
}

// marshalJSON encodes a message as it is shown in JSON everywhere: fields that have
// their zero value are left out, and a 64-bit integer is a string.
func marshalJSON(dst []byte, message proto.Message) ([]byte, error) {
	return protojson.MarshalOptions{}.MarshalAppend(dst, message)
}
