package rest

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/yourorg/userservice/service/jsonpb"
	"github.com/yourorg/userservice/service/rpcstatus"
	"github.com/yourorg/userservice/service/user"
)

const (
	maxViolations = 20  // maximum in one response
	maxEcho       = 100 // maximum bytes of the caller's text in an error

	timestampName = protoreflect.FullName("google.protobuf.Timestamp")
	fieldMaskName = protoreflect.FullName("google.protobuf.FieldMask")
)

// query reads a URL query into a request message. Unknown, repeated and contradictory parameters
// are violations.
type query struct {
	message protoreflect.Message
	// fixed are the fields set by the path or the body.
	fixed []protoreflect.FieldDescriptor

	setAs      map[protoreflect.FieldDescriptor]string
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
	q := &query{message: message, fixed: fixed, setAs: make(map[protoreflect.FieldDescriptor]string)}
	names := make([]string, 0, len(values))
	for name := range values {
		names = append(names, name)
	}
	slices.Sort(names) // for a deterministic response
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

// parameter reads the values of one parameter.
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
		q.reject(string(field.Name()), "must not be in the query: set by the path or the body")
		return
	case q.setAs[field] != "":
		q.reject(string(field.Name()), "set twice, as "+q.setAs[field]+" and as "+name)
		return
	}
	q.setAs[field] = name
	switch {
	case isMessage(field, fieldMaskName):
		q.mask(field, values, true)
	case field.IsList():
		q.list(field, values)
	case field.IsMap():
		q.reject(string(field.Name()), "not supported in the query")
	case len(values) > 1:
		q.reject(string(field.Name()), "must not be repeated")
	default:
		value, _, problem := parseScalar(field, values[0])
		if problem != "" {
			q.reject(string(field.Name()), problem)
			return
		}
		q.message.Set(field, value)
	}
}

// list reads a repeated field from repeated or comma-separated values.
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

// mask reads a field mask, comma-separated or from one parameter for each path. Only the first
// path element is converted to snake case, because metadata keys are case-sensitive.
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
				q.reject(string(field.Name()), "must be field names")
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

const unsupported = "not supported here"

// parseScalar parses a value. text is its canonical form; problem is the expected form if the
// value is invalid.
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
		return value, "", unsupported
	default:
		return value, "", unsupported
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
	// An unescaped + of a zone offset arrives as a space.
	text = strings.ReplaceAll(in, " ", "+")
	stamp := new(timestamppb.Timestamp)
	// protojson rejects fractions that time.Parse truncates.
	if err := protojson.Unmarshal([]byte(strconv.Quote(text)), stamp); err != nil {
		return value, "", jsonpb.ExpectedElement(field)
	}
	return protoreflect.ValueOfMessage(stamp.ProtoReflect()), stamp.AsTime().Format(time.RFC3339Nano), ""
}

// fieldNamed returns the field with the proto or JSON name, or nil.
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

// snakeCase converts a JSON name to the proto name.
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
