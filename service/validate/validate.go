// Package validate validates messages by the rules of their proto files, and by rules that hold for
// every message. It is the only place that does: intercept.Validate calls it with the request of a
// unary call or a server stream, the handlers of package service with each item of a batch or of a
// client or bidi stream, because items fail one by one.
package validate

import (
	"errors"
	"fmt"
	"slices"

	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/yourorg/userservice/service/user"
)

// Validator validates messages. It is safe for concurrent use.
type Validator struct {
	rules protovalidate.Validator
	fast  []protovalidate.ValidationOption // to decide whether a message is valid
}

// New returns a validator for the requests of the services in files. It compiles all
// rules at once, so that an invalid rule is found at the start and no call pays for compiling.
func New(files ...protoreflect.FileDescriptor) (*Validator, error) {
	var messages []proto.Message
	elements, seen := make(elementRules), make(map[protoreflect.FullName]bool)
	for _, service := range servicesOf(files) {
		methods := service.Methods()
		for j := range methods.Len() {
			kind, err := protoregistry.GlobalTypes.FindMessageByName(methods.Get(j).Input().FullName())
			if err != nil {
				return nil, fmt.Errorf("find request message of %s: %w", methods.Get(j).FullName(), err)
			}
			messages = append(messages, kind.New().Interface())
			elements.add(kind.Descriptor(), seen)
		}
	}
	rules, err := protovalidate.New(protovalidate.WithMessages(messages...), protovalidate.WithDisableLazy())
	if err != nil {
		return nil, fmt.Errorf("compile validation rules: %w", err)
	}
	return &Validator{rules, []protovalidate.ValidationOption{protovalidate.WithFailFast(), protovalidate.WithFilter(elements)}}, nil
}

func servicesOf(files []protoreflect.FileDescriptor) (services []protoreflect.ServiceDescriptor) {
	for _, file := range files {
		for i := range file.Services().Len() {
			services = append(services, file.Services().Get(i))
		}
	}
	return services
}

// maxReportedElements is the number of elements above which validation stops at the first violation. A
// violation takes about 1 KiB, an invalid element as little as two bytes.
const maxReportedElements = 256

// Validate returns a *user.Error with the violations of the message, or an unexpected error of the
// validator. An absent message, such as null in a list, is invalid.
func (v *Validator) Validate(message proto.Message) error {
	if !message.ProtoReflect().IsValid() {
		return user.NewFieldErrorf("", "must be set")
	}
	err := v.rules.Validate(message, v.fast...)
	large := false
	if err != nil {
		if large = elements(message.ProtoReflect(), maxReportedElements) > maxReportedElements; !large {
			err = v.rules.Validate(message)
		}
	}
	var nul []user.Violation
	if !large {
		nul = nulViolations(message.ProtoReflect())
	}
	if err == nil && nul == nil {
		return nil
	}
	var broken *protovalidate.ValidationError
	if err != nil && !errors.As(err, &broken) {
		return fmt.Errorf("validate %s: %w", message.ProtoReflect().Descriptor().FullName(), err)
	}
	var violations []user.Violation
	if broken != nil {
		for _, v := range broken.Violations {
			violations = append(violations, user.Violation{
				Field:   protovalidate.FieldPathString(v.Proto.GetField()),
				Message: v.Proto.GetMessage(),
				Rule:    v.Proto.GetRuleId(),
			})
		}
	}
	violations = addDomainViolations(violations, message)
	for _, v := range nul {
		if !slices.ContainsFunc(violations, func(other user.Violation) bool { return other.Field == v.Field }) {
			violations = append(violations, v)
		}
	}
	invalid := user.NewInvalidError(violations...)
	if large {
		invalid.Message += " (large request: only the first violation is reported)"
	}
	return invalid
}

// elements counts the elements of all lists and maps of a message, and stops beyond most.
func elements(m protoreflect.Message, most int) (n int) {
	m.Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case field.IsMap():
			n += v.Map().Len()
		case field.IsList():
			list := v.List()
			n += list.Len()
			for i := 0; field.Message() != nil && i < list.Len() && n <= most; i++ {
				n += elements(list.Get(i).Message(), most-n)
			}
		case field.Message() != nil:
			n += elements(v.Message(), most-n)
		}
		return n <= most
	})
	return n
}
