package intercept

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"buf.build/go/protovalidate"
	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/yourorg/userservice/service/user"
)

// NewValidator returns a validator for the requests of the services in files. It compiles all
// rules at once, so that an invalid rule is found at the start and no call pays for compiling.
func NewValidator(files ...protoreflect.FileDescriptor) (protovalidate.Validator, error) {
	var messages []proto.Message
	for _, service := range servicesOf(files) {
		methods := service.Methods()
		for j := range methods.Len() {
			kind, err := protoregistry.GlobalTypes.FindMessageByName(methods.Get(j).Input().FullName())
			if err != nil {
				return nil, fmt.Errorf("find request message of %s: %w", methods.Get(j).FullName(), err)
			}
			messages = append(messages, kind.New().Interface())
		}
	}
	validator, err := protovalidate.New(protovalidate.WithMessages(messages...), protovalidate.WithDisableLazy())
	if err != nil {
		return nil, fmt.Errorf("compile validation rules: %w", err)
	}
	return validator, nil
}

func servicesOf(files []protoreflect.FileDescriptor) (services []protoreflect.ServiceDescriptor) {
	for _, file := range files {
		for i := range file.Services().Len() {
			services = append(services, file.Services().Get(i))
		}
	}
	return services
}

// Item returns a function that validates one message by the proto rules. Its errors are
// *user.Error, except for failures of the validator.
func Item(validator protovalidate.Validator) func(any) error {
	return func(item any) error {
		message, ok := item.(proto.Message)
		if !ok {
			return fmt.Errorf("validate %T: not a message", item)
		}
		return validate(validator, message)
	}
}

// Validate is an interceptor that validates the requests of unary calls and server streams.
// Items of client and bidi streams fail one by one, so their handlers validate them, see Item.
type Validate struct {
	serverOnly

	validator protovalidate.Validator
}

// NewValidate returns an interceptor for the validator.
func NewValidate(validator protovalidate.Validator) *Validate {
	return &Validate{validator: validator}
}

// WrapUnary validates the request.
func (v *Validate) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		if message, ok := req.Any().(proto.Message); ok {
			if err := validate(v.validator, message); err != nil {
				return nil, err
			}
		}
		return next(ctx, req)
	}
}

// WrapStreamingHandler validates the request of a server stream.
func (v *Validate) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		if conn.Spec().StreamType == connect.StreamTypeServer {
			conn = &validatedConn{StreamingHandlerConn: conn, validator: v.validator}
		}
		return next(ctx, conn)
	}
}

type validatedConn struct {
	connect.StreamingHandlerConn

	validator protovalidate.Validator
}

// Receive receives and validates a message.
func (c *validatedConn) Receive(message any) error {
	if err := c.StreamingHandlerConn.Receive(message); err != nil {
		return err
	}
	if message, ok := message.(proto.Message); ok {
		return onNewGoroutine(func() error { return validate(c.validator, message) })
	}
	return nil
}

// onNewGoroutine runs do on a new goroutine and waits for it. Validation needs a deep stack, which a
// waiting stream would otherwise keep (about 4 KiB).
func onNewGoroutine(do func() error) error {
	done := make(chan error, 1)
	go func() {
		var err error
		defer func() { done <- err }()
		defer recovered(&err)
		err = do()
	}()
	return <-done
}

// maxReportedElements is the number of elements above which validation stops at the first violation. A
// violation takes about 1 KiB, an invalid element as little as two bytes.
const maxReportedElements = 256

func validate(validator protovalidate.Validator, message proto.Message) error {
	err := validator.Validate(message, protovalidate.WithFailFast())
	large := false
	if err != nil {
		if large = elements(message.ProtoReflect(), maxReportedElements) > maxReportedElements; !large {
			err = validator.Validate(message)
		}
	}
	var nul []user.Violation
	if !large {
		nul = nulViolations(message.ProtoReflect(), "")
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
