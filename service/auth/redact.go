package auth

import (
	"context"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/yourorg/userservice/service/user"
)

// Redact removes from a response the fields that the caller in ctx may not read. It replaces
// maps instead of changing them, because they may be shared.
func (p *Policy) Redact(ctx context.Context, message any) {
	if s := callerStateOf(ctx); s != nil && s.caller.Permissions&redactionNeeds == redactionNeeds {
		return // the use of the permissions is recorded only for streams
	}
	if m, ok := message.(proto.Message); ok && m != nil {
		p.redact(callerStateOf(ctx), m.ProtoReflect())
	}
}

// Redactor returns a function for the messages of a stream. It returns a message, or a redacted copy if the caller in ctx may not
// read all of its fields: streams may share the message.
func (p *Policy) Redactor(ctx context.Context) func(message any) any {
	state := callerStateOf(ctx)
	return func(message any) any {
		m, ok := message.(proto.Message)
		if !ok || !p.withholds(state, m.ProtoReflect()) {
			return message
		}
		redacted := proto.Clone(m)
		p.redact(state, redacted.ProtoReflect())
		return redacted
	}
}

// RedactError returns err without metadata that the caller in ctx may not read.
func RedactError(ctx context.Context, err error) error {
	e, ok := user.AsError(err)
	if !ok || !hasUserMetadata(e.Metadata) || callerStateOf(ctx).use(UsersRead) {
		return err
	}
	redacted := *e
	redacted.Metadata = redactUserMetadata(e.Metadata)
	return &redacted
}

func hasUserMetadata(metadata map[string]string) bool {
	return slices.ContainsFunc(userMetadata, func(key string) bool { _, found := metadata[key]; return found })
}

func redactUserMetadata(metadata map[string]string) map[string]string {
	out := maps.Clone(metadata)
	for _, key := range userMetadata {
		delete(out, key)
	}
	return out
}

// plan is the redaction of one message type, with its fields resolved.
type plan struct {
	redaction *redaction                     // nil: every field is public
	closed    []protoreflect.FieldDescriptor // the fields that need redaction.needs
	inner     []protoreflect.FieldDescriptor // message fields that may contain redactions
}

func (p *Policy) redact(s *State, m protoreflect.Message) {
	p.visit(m, func(plan *plan, m protoreflect.Message) {
		if !s.use(plan.redaction.needs) {
			for _, field := range plan.closed {
				withhold(m, field, plan.redaction.redactMap)
			}
		}
	})
}

// withholds reports whether redact would change a message.
func (p *Policy) withholds(s *State, m protoreflect.Message) (found bool) {
	p.visit(m, func(plan *plan, _ protoreflect.Message) { found = !s.use(plan.redaction.needs) || found })
	return found
}

// visit calls f for each message in m that has fields that need a further permission.
func (p *Policy) visit(m protoreflect.Message, f func(*plan, protoreflect.Message)) {
	plan := p.plan(m.Descriptor())
	if slices.ContainsFunc(plan.closed, m.Has) {
		f(plan, m)
	}
	for _, field := range plan.inner {
		if !m.Has(field) {
			continue
		}
		switch value := m.Get(field); {
		case field.IsList():
			for i := range value.List().Len() {
				p.visit(value.List().Get(i).Message(), f)
			}
		case field.IsMap():
			value.Map().Range(func(_ protoreflect.MapKey, value protoreflect.Value) bool {
				p.visit(value.Message(), f)
				return true
			})
		default:
			p.visit(value.Message(), f)
		}
	}
}

// withhold clears a field. A map field keeps the entries that redactMap returns.
func withhold(m protoreflect.Message, field protoreflect.FieldDescriptor, redactMap func(map[string]string) map[string]string) {
	if redactMap == nil || !field.IsMap() || !m.Has(field) {
		m.Clear(field)
		return
	}
	all := make(map[string]string)
	m.Get(field).Map().Range(func(key protoreflect.MapKey, value protoreflect.Value) bool {
		all[key.String()] = value.String()
		return true
	})
	shown := m.NewField(field)
	for key, value := range redactMap(all) {
		shown.Map().Set(protoreflect.ValueOfString(key).MapKey(), protoreflect.ValueOfString(value))
	}
	m.Set(field, shown)
}

// plan returns the cached plan for a message type.
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
	made := &plan{redaction: redactionOf(d)}
	for i := range d.Fields().Len() {
		field := d.Fields().Get(i)
		if made.redaction != nil && !slices.Contains(made.redaction.public, field.Name()) {
			made.closed = append(made.closed, field)
		}
		if inner := messageOf(field); inner != nil && hasRedactions(inner, nil) {
			made.inner = append(made.inner, field)
		}
	}
	return made
}

func redactionOf(d protoreflect.MessageDescriptor) *redaction {
	for i := range redactions {
		if redactions[i].message == d.FullName() {
			return &redactions[i]
		}
	}
	return nil
}

func messageOf(field protoreflect.FieldDescriptor) protoreflect.MessageDescriptor {
	if field.IsMap() {
		return field.MapValue().Message()
	}
	return field.Message()
}

// hasRedactions reports whether a message type is redacted or can contain one that is.
func hasRedactions(d protoreflect.MessageDescriptor, visited []protoreflect.FullName) bool {
	if redactionOf(d) != nil {
		return true
	}
	if slices.Contains(visited, d.FullName()) {
		return false
	}
	for i := range d.Fields().Len() {
		if inner := messageOf(d.Fields().Get(i)); inner != nil && hasRedactions(inner, append(visited, d.FullName())) {
			return true
		}
	}
	return false
}
