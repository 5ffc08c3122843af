package auth

import (
	"context"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/yourorg/userservice/service/user"
)

// Redact takes out of a response what the caller in the context may not see, as the
// policy's parts say, wherever in the message it is. Maps of the message are replaced,
// not changed, because they may be shared.
func (p *Policy) Redact(ctx context.Context, message any) {
	if m, ok := message.(proto.Message); ok && m != nil {
		p.redact(standingOf(ctx), m.ProtoReflect())
	}
}

// RedactError returns the error that the caller in the context may see.
func RedactError(ctx context.Context, err error) error {
	e, ok := user.AsError(err)
	if !ok || !tellsOfUser(e.Metadata) || standingOf(ctx).use(UsersRead) {
		return err
	}
	redacted := *e
	redacted.Metadata = withoutUser(e.Metadata)
	return &redacted
}

func tellsOfUser(metadata map[string]string) bool {
	return slices.ContainsFunc(userMetadata, func(key string) bool { _, found := metadata[key]; return found })
}

func withoutUser(metadata map[string]string) map[string]string {
	out := maps.Clone(metadata)
	for _, key := range userMetadata {
		delete(out, key)
	}
	return out
}

// plan is what Redact does with messages of one type.
type plan struct {
	part   *part                          // nil: every field is open
	closed []protoreflect.FieldDescriptor // the fields that need part.needs
	inner  []protoreflect.FieldDescriptor // the fields that may have parts inside
}

func (p *Policy) redact(s *standing, m protoreflect.Message) {
	plan := p.plan(m.Descriptor())
	if slices.ContainsFunc(plan.closed, m.Has) && !s.use(plan.part.needs) {
		for _, field := range plan.closed {
			withhold(m, field, plan.part.without)
		}
	}
	for _, field := range plan.inner {
		if !m.Has(field) {
			continue
		}
		switch value := m.Get(field); {
		case field.IsList():
			for i := range value.List().Len() {
				p.redact(s, value.List().Get(i).Message())
			}
		case field.IsMap():
			value.Map().Range(func(_ protoreflect.MapKey, value protoreflect.Value) bool {
				p.redact(s, value.Message())
				return true
			})
		default:
			p.redact(s, value.Message())
		}
	}
}

// withhold clears a field, or leaves of a map what without returns.
func withhold(m protoreflect.Message, field protoreflect.FieldDescriptor, without func(map[string]string) map[string]string) {
	if without == nil || !field.IsMap() || !m.Has(field) {
		m.Clear(field)
		return
	}
	all := make(map[string]string)
	m.Get(field).Map().Range(func(key protoreflect.MapKey, value protoreflect.Value) bool {
		all[key.String()] = value.String()
		return true
	})
	shown := m.NewField(field)
	for key, value := range without(all) {
		shown.Map().Set(protoreflect.ValueOfString(key).MapKey(), protoreflect.ValueOfString(value))
	}
	m.Set(field, shown)
}

// plan returns the plan for a type of message, which is made once.
func (p *Policy) plan(d protoreflect.MessageDescriptor) *plan {
	if known, ok := p.plans.Load(d.FullName()); ok {
		made, _ := known.(*plan)
		return made
	}
	made := newPlan(d)
	p.plans.Store(d.FullName(), made)
	return made
}

func newPlan(d protoreflect.MessageDescriptor) *plan {
	made := &plan{part: partOf(d)}
	for i := range d.Fields().Len() {
		field := d.Fields().Get(i)
		if made.part != nil && !slices.Contains(made.part.open, field.Name()) {
			made.closed = append(made.closed, field)
		}
		if inner := messageOf(field); inner != nil && hasParts(inner, nil) {
			made.inner = append(made.inner, field)
		}
	}
	return made
}

func partOf(d protoreflect.MessageDescriptor) *part {
	for i := range parts {
		if parts[i].message == d.FullName() {
			return &parts[i]
		}
	}
	return nil
}

// messageOf returns the type of the messages in a field, nil if it has none.
func messageOf(field protoreflect.FieldDescriptor) protoreflect.MessageDescriptor {
	if field.IsMap() {
		return field.MapValue().Message()
	}
	return field.Message()
}

// hasParts reports whether a message of the type may have a part in it, or is one.
func hasParts(d protoreflect.MessageDescriptor, seen []protoreflect.FullName) bool {
	if partOf(d) != nil {
		return true
	}
	if slices.Contains(seen, d.FullName()) {
		return false
	}
	for i := range d.Fields().Len() {
		if inner := messageOf(d.Fields().Get(i)); inner != nil && hasParts(inner, append(seen, d.FullName())) {
			return true
		}
	}
	return false
}
