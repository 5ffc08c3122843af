package rest

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/yourorg/userservice/service/jsonpb"
	"github.com/yourorg/userservice/service/rpcstatus"
	"github.com/yourorg/userservice/service/user"
)

const (
	maxViolations = 20  // told at once
	maxEcho       = 100 // bytes of a caller's own text that an error repeats

	timestampName = protoreflect.FullName("google.protobuf.Timestamp")
	fieldMaskName = protoreflect.FullName("google.protobuf.FieldMask")
)

// query reads a query into a request message. A parameter must be known, must not be
// given twice, and must not contradict the path or the body.
type query struct {
	message protoreflect.Message
	// fixed are fields that the path or the body gives.
	fixed []protoreflect.FieldDescriptor

	seen       map[protoreflect.FieldDescriptor]string
	violations []user.Violation
}

// readQuery reads the query into the message.
func readQuery(raw string, message protoreflect.Message, fixed ...protoreflect.FieldDescriptor) []user.Violation {
	if raw == "" {
		return nil
	}
	values, err := url.ParseQuery(raw)
	if err != nil {
		return []user.Violation{{Field: "query", Message: "must be name=value pairs joined by &, percent-encoded"}}
	}
	q := &query{message: message, fixed: fixed, seen: make(map[protoreflect.FieldDescriptor]string)}
	names := make([]string, 0, len(values))
	for name := range values {
		names = append(names, name)
	}
	slices.Sort(names) // so that the answer is always the same
	for _, name := range names {
		q.parameter(name, values[name])
	}
	return q.violations
}

func (q *query) reject(field, message string) {
	if len(q.violations) < maxViolations {
		q.violations = append(q.violations, user.Violation{Field: rpcstatus.Truncate(field, maxEcho), Message: message})
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
		q.reject(name, "unknown parameter")
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
		value, _, problem := parseScalar(field, values[0])
		if problem != "" {
			q.reject(string(field.Name()), problem)
			return
		}
		q.message.Set(field, value)
	}
}

// list reads a repeated field, whose values may come one by one or with commas; no
// value that the service takes has a comma in it.
func (q *query) list(field protoreflect.FieldDescriptor, values []string) {
	list := q.message.Mutable(field).List()
	for _, joined := range values {
		for text := range strings.SplitSeq(joined, ",") {
			value, _, problem := parseScalar(field, text)
			if problem != "" {
				q.reject(string(field.Name())+"["+strconv.Itoa(list.Len())+"]", problem)
				return
			}
			list.Append(value)
		}
	}
}

// mask reads a field mask, with commas or path by path. Of a path the name of the field
// alone is turned from camel case to snake case: a key of metadata stays as it is.
func (q *query) mask(field protoreflect.FieldDescriptor, values []string, commas bool) {
	mask := &fieldmaskpb.FieldMask{}
	if before, ok := q.message.Get(field).Message().Interface().(*fieldmaskpb.FieldMask); ok {
		mask.Paths = slices.Clone(before.GetPaths())
	}
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
		b, err := strconv.ParseBool(in)
		if err != nil {
			return value, "", jsonpb.ExpectedElement(field)
		}
		return protoreflect.ValueOfBool(b), strconv.FormatBool(b), ""
	case protoreflect.Int32Kind:
		n, err := strconv.ParseInt(in, 10, 32)
		if err != nil {
			return value, "", jsonpb.ExpectedElement(field)
		}
		return protoreflect.ValueOfInt32(int32(n)), strconv.FormatInt(n, 10), ""
	case protoreflect.Int64Kind:
		n, err := strconv.ParseInt(in, 10, 64)
		if err != nil {
			return value, "", jsonpb.ExpectedElement(field)
		}
		return protoreflect.ValueOfInt64(n), strconv.FormatInt(n, 10), ""
	case protoreflect.EnumKind:
		return parseEnum(field, in)
	case protoreflect.MessageKind:
		if field.Message().FullName() == timestampName {
			return parseTime(field, in)
		}
		return value, "", cannot
	default:
		return value, "", cannot
	}
}

func parseEnum(field protoreflect.FieldDescriptor, in string) (value protoreflect.Value, text, problem string) {
	found := jsonpb.EnumValue(field.Enum(), in)
	if n, err := strconv.ParseInt(in, 10, 32); err == nil {
		found = field.Enum().Values().ByNumber(protoreflect.EnumNumber(n))
	}
	if found == nil {
		return value, "", jsonpb.ExpectedElement(field)
	}
	return protoreflect.ValueOfEnum(found.Number()), string(found.Name()), ""
}

func parseTime(field protoreflect.FieldDescriptor, in string) (value protoreflect.Value, text, problem string) {
	// An unescaped + of a zone arrives as a space, which no time has.
	at, err := time.Parse(time.RFC3339Nano, strings.ReplaceAll(in, " ", "+"))
	stamp := timestamppb.New(at)
	if err != nil || stamp.CheckValid() != nil {
		return value, "", jsonpb.ExpectedElement(field)
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
