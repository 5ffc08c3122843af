package validate

import (
	"math"
	"slices"
	"unicode/utf8"

	buf "buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// elementRules decides whether lists and maps are valid by their rules in the proto file, without
// protovalidate, which runs a CEL program for each rule of each element (0.25 µs in v1.4.0). A field
// that is not valid here is left to protovalidate, which reports the violations. A field with a rule
// that is not implemented here is not in the map.
type elementRules map[protoreflect.FieldDescriptor]valid

// valid reports whether a value is valid.
type valid func(protoreflect.Value) bool

// add adds the fields of a message and of the messages in it.
func (e elementRules) add(message protoreflect.MessageDescriptor, seen map[protoreflect.FullName]bool) {
	if seen[message.FullName()] {
		return
	}
	seen[message.FullName()] = true
	for i := range message.Fields().Len() {
		field := message.Fields().Get(i)
		rules, _ := proto.GetExtension(field.Options(), buf.E_Field).(*buf.FieldRules)
		if check := containerRules(field, rules); check != nil {
			e[field] = check
		}
		if field.Message() != nil {
			e.add(field.Message(), seen)
		}
	}
}

// ShouldValidate implements protovalidate.Filter.
func (e elementRules) ShouldValidate(m protoreflect.Message, d protoreflect.Descriptor) bool {
	field, ok := d.(protoreflect.FieldDescriptor)
	if !ok || field.Cardinality() != protoreflect.Repeated {
		return true
	}
	check, ok := e[field]
	return !ok || !check(m.Get(field))
}

// containerRules returns the check of a list or map of scalars, nil if a rule of it is not implemented.
func containerRules(field protoreflect.FieldDescriptor, rules *buf.FieldRules) valid {
	switch {
	case only(rules, "repeated") && field.IsList() && field.Message() == nil:
		return listRules(field.Kind(), rules.GetRepeated())
	case only(rules, "map") && field.IsMap() && field.MapValue().Message() == nil:
		return mapRules(rules.GetMap())
	}
	return nil
}

func listRules(kind protoreflect.Kind, rules *buf.RepeatedRules) valid {
	item, known := scalarRules(rules.GetItems())
	distinct, unique := distinctValues(kind)
	if !known || rules.GetUnique() && !unique || !only(rules, "min_items", "max_items", "unique", "items") {
		return nil
	}
	length := limitsOf(rules.GetMinItems(), rules.HasMaxItems(), rules.GetMaxItems())
	return func(v protoreflect.Value) bool {
		list := v.List()
		if !length.allow(list.Len()) {
			return false
		}
		for i := range list.Len() {
			if !item(list.Get(i)) {
				return false
			}
		}
		return !rules.GetUnique() || distinct(list)
	}
}

func mapRules(rules *buf.MapRules) valid {
	key, known := scalarRules(rules.GetKeys())
	value, valueKnown := scalarRules(rules.GetValues())
	if !known || !valueKnown || !only(rules, "min_pairs", "max_pairs", "keys", "values") {
		return nil
	}
	length := limitsOf(rules.GetMinPairs(), rules.HasMaxPairs(), rules.GetMaxPairs())
	return func(v protoreflect.Value) bool {
		ok := length.allow(v.Map().Len())
		v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
			ok = ok && key(k.Value()) && value(v)
			return ok
		})
		return ok
	}
}

// scalarRules returns the check of an item, a key or a value; known is false if a rule of it is not
// implemented.
func scalarRules(rules *buf.FieldRules) (check valid, known bool) {
	switch {
	case only(rules):
		return func(protoreflect.Value) bool { return true }, true
	case only(rules, "int64") && only(rules.GetInt64(), "gt") && rules.GetInt64().HasGt():
		bound := rules.GetInt64().GetGt()
		return func(v protoreflect.Value) bool { return v.Int() > bound }, true
	case only(rules, "string") && only(rules.GetString(), "min_len", "max_len", "max_bytes"):
		text := rules.GetString()
		runes := limitsOf(text.GetMinLen(), text.HasMaxLen(), text.GetMaxLen())
		bytes := limitsOf(0, text.HasMaxBytes(), text.GetMaxBytes())
		return func(v protoreflect.Value) bool {
			s := v.String()
			return bytes.allow(len(s)) && runes.allow(utf8.RuneCountInString(s))
		}, true
	}
	return nil, false
}

// only reports whether a message sets no other fields than those with the names.
func only(m proto.Message, names ...protoreflect.Name) bool {
	known := len(m.ProtoReflect().GetUnknown()) == 0
	m.ProtoReflect().Range(func(field protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		known = known && slices.Contains(names, field.Name())
		return known
	})
	return known
}

type limits struct{ least, most uint64 }

func limitsOf(least uint64, bounded bool, most uint64) limits {
	if !bounded {
		most = math.MaxUint64
	}
	return limits{least, most}
}

func (l limits) allow(n int) bool { return uint64(n) >= l.least && uint64(n) <= l.most }

// distinctValues returns the function that reports whether the values of a list differ; ok is false for
// other kinds than int64 and string.
func distinctValues(kind protoreflect.Kind) (distinct func(protoreflect.List) bool, ok bool) {
	switch kind {
	case protoreflect.Int64Kind:
		return func(list protoreflect.List) bool {
			return ascending(list) || differ(list, protoreflect.Value.Int)
		}, true
	case protoreflect.StringKind:
		return func(list protoreflect.List) bool { return differ(list, protoreflect.Value.String) }, true
	default:
		return nil, false
	}
}

// ascending is the fast path of lists of ids.
func ascending(list protoreflect.List) bool {
	for i := 1; i < list.Len(); i++ {
		if list.Get(i-1).Int() >= list.Get(i).Int() {
			return false
		}
	}
	return true
}

func differ[T comparable](list protoreflect.List, value func(protoreflect.Value) T) bool {
	if list.Len() < 2 {
		return true
	}
	seen := make(map[T]struct{}, list.Len())
	for i := range list.Len() {
		seen[value(list.Get(i))] = struct{}{}
	}
	return len(seen) == list.Len()
}
