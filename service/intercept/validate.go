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

// NewValidator returns a validator for the requests of the services in the files. All
// rules are compiled now: the first call of each kind would otherwise take
// milliseconds, and a rule that does not compile would show only then.
func NewValidator(files ...protoreflect.FileDescriptor) (protovalidate.Validator, error) {
	var messages []proto.Message
	for _, service := range servicesOf(files) {
		methods := service.Methods()
		for j := range methods.Len() {
			kind, err := protoregistry.GlobalTypes.FindMessageByName(methods.Get(j).Input().FullName())
			if err != nil {
				return nil, fmt.Errorf("find the request of %s: %w", methods.Get(j).FullName(), err)
			}
			messages = append(messages, kind.New().Interface())
		}
	}
	validator, err := protovalidate.New(protovalidate.WithMessages(messages...), protovalidate.WithDisableLazy())
	if err != nil {
		return nil, fmt.Errorf("compile the rules of the proto: %w", err)
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

// Item returns a function that checks one message by the rules of the proto. Its
// errors are *user.Error, but for those of the validator itself.
func Item(validator protovalidate.Validator) func(any) error {
	return func(item any) error {
		message, ok := item.(proto.Message)
		if !ok {
			return fmt.Errorf("validate %T: not a message", item)
		}
		return validate(validator, message)
	}
}

// Validate checks the requests of unary calls and of server streams. The items of
// client and bidi streams it leaves to their handlers, see Item: a bad item is that
// item's failure, not the stream's.
type Validate struct {
	serverOnly

	validator protovalidate.Validator
}

// NewValidate returns an interceptor that checks by the validator.
func NewValidate(validator protovalidate.Validator) *Validate {
	return &Validate{validator: validator}
}

// WrapUnary checks the request.
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

// WrapStreamingHandler checks the one request of a server stream.
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

// Receive receives a message and checks it.
func (c *validatedConn) Receive(message any) error {
	if err := c.StreamingHandlerConn.Receive(message); err != nil {
		return err
	}
	if message, ok := message.(proto.Message); ok {
		return apart(func() error { return validate(c.validator, message) })
	}
	return nil
}

// apart runs a function on a goroutine of its own and waits for it. The rules are the
// deepest part of a stream's beginning; on the stream's own goroutine each stream that
// waits would keep a page of stack more, a tenth of what it takes.
func apart(do func() error) error {
	done := make(chan error, 1)
	go func() {
		var err error
		defer func() { done <- err }()
		defer recovered(&err)
		err = do()
	}()
	return <-done
}

// maxSought is the number of elements above which only the first violation of a message is
// looked for. A violation takes a KiB, and an element that breaks a rule two bytes.
const maxSought = 256

func validate(validator protovalidate.Validator, message proto.Message) error {
	err := validator.Validate(message, protovalidate.WithFailFast())
	large := false
	if err != nil {
		if large = elements(message.ProtoReflect(), maxSought) > maxSought; !large {
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
	violations = complete(violations, message)
	for _, v := range nul {
		if !slices.ContainsFunc(violations, func(known user.Violation) bool { return known.Field == v.Field }) {
			violations = append(violations, v)
		}
	}
	invalid := user.NewInvalidError(violations...)
	if large {
		invalid.Message += " (the request is large: only the first violation was looked for)"
	}
	return invalid
}

// elements counts the elements of all lists and maps of a message, to a bit beyond most.
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
