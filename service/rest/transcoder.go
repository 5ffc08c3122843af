package rest

import (
	"compress/gzip"
	"errors"
	"io"
	"math"
	"net/http"
	"regexp"
	"strings"

	"connectrpc.com/connect"
	"connectrpc.com/vanguard"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/yourorg/userservice/service/bounds"
	"github.com/yourorg/userservice/service/intercept"
	"github.com/yourorg/userservice/service/user"
)

// jsonGrowth is how many times larger than its binary form an answer may be as JSON.
// Control characters grow six times, names of fields and times less.
const jsonGrowth = 8

// newTranscoder returns the handler that turns REST calls, whose path and query are
// sound already, into calls of the handler.
func newTranscoder(service protoreflect.ServiceDescriptor, held *bounds.Bounds, opts Options) (http.Handler, error) {
	limit := int64(opts.MaxMessageBytes)
	// The transcoder holds answers to the same limit as requests, and an answer once
	// more as JSON; a request has met its own limit before it gets here.
	buffered := uint32(min(limit, math.MaxInt32/jsonGrowth) * jsonGrowth)
	served := vanguard.NewServiceWithSchema(service, guard(opts.Handler),
		vanguard.WithTargetProtocols(vanguard.ProtocolConnect),
		vanguard.WithTargetCodecs(vanguard.CodecProto),
		vanguard.WithNoTargetCompression(),
		vanguard.WithMaxMessageBufferBytes(buffered),
	)
	return vanguard.NewTranscoder([]*vanguard.Service{served},
		vanguard.WithCodec(func(types vanguard.TypeResolver) vanguard.Codec { return newCodec(types, held) }),
		vanguard.WithCompression(vanguard.CompressionGzip,
			func() connect.Compressor { return gzip.NewWriter(io.Discard) },
			func() connect.Decompressor { return newGunzip(limit, opts.TooLarge) },
		),
	)
}

// guard keeps a request that was refused while its body was read from the handler.
// The transcoder answers such a request, but then shows the handler an empty body,
// which is a valid message.
func guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a, ok := r.Context().Value(answerKey{}).(*answer); ok {
			r.Body = &guardedBody{ReadCloser: r.Body, answer: a}
		}
		next.ServeHTTP(w, r)
	})
}

type guardedBody struct {
	io.ReadCloser

	answer *answer
}

// Read gives an error in place of the end of a body that was refused.
func (b *guardedBody) Read(data []byte) (int, error) {
	n, err := b.ReadCloser.Read(data)
	if errors.Is(err, io.EOF) && b.answer.started {
		return 0, bodyFault("the body was refused")
	}
	return n, err
}

// codec is JSON as requests bring it and answers show it. Unlike the transcoder's own
// it does not pass over unknown fields, and says whose fault it is when something
// cannot be read. It decodes no more than the bounds say.
type codec struct {
	vanguard.JSONCodec

	bounds *bounds.Bounds
}

var _ vanguard.RESTCodec = codec{}

func newCodec(types vanguard.TypeResolver, held *bounds.Bounds) codec {
	return codec{bounds: held, JSONCodec: vanguard.JSONCodec{
		MarshalOptions:   protojson.MarshalOptions{Resolver: types},
		UnmarshalOptions: protojson.UnmarshalOptions{Resolver: types},
	}}
}

// Unmarshal reads a message.
func (c codec) Unmarshal(data []byte, message proto.Message) error {
	data, err := c.bounds.JSON(message.ProtoReflect().Descriptor().FullName(), data)
	if err != nil {
		return bodyFault(err.Error())
	}
	return jsonFault(c.JSONCodec.Unmarshal(data, message), message)
}

// UnmarshalField reads one field of a message.
func (c codec) UnmarshalField(data []byte, message proto.Message, field protoreflect.FieldDescriptor) error {
	if within := field.Message(); within != nil && !field.IsList() && !field.IsMap() {
		var err error
		if data, err = c.bounds.JSON(within.FullName(), data); err != nil {
			return bodyFault(err.Error())
		}
	}
	return jsonFault(c.JSONCodec.UnmarshalField(data, message, field), message)
}

var (
	faultPlace = regexp.MustCompile(`\(line (\d+:\d+)\)`)
	faultField = regexp.MustCompile(`field "?([A-Za-z0-9_.]+)"?`)
)

// jsonFault makes an answer of what is wrong with JSON. The text of the fault is made
// from the caller's own body; only the field's name and the place are taken from it,
// because its wording is not stable.
func jsonFault(err error, message proto.Message) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	violation := user.Violation{Field: "body", Message: "is not JSON of the expected form"}
	if found := faultField.FindStringSubmatch(text); found != nil {
		violation.Field = echo(found[1])
		if field := fieldNamed(message.ProtoReflect(), found[1]); field != nil {
			violation.Field = string(field.Name())
		}
		switch {
		case strings.Contains(text, "unknown field"):
			violation.Message = "there is no such field"
		case strings.Contains(text, "duplicate field"):
			violation.Message = "is given twice"
		default:
			violation.Message = "has a value of the wrong kind"
		}
	}
	if place := faultPlace.FindStringSubmatch(text); place != nil {
		violation.Message += " (line " + place[1] + " of the body)"
	}
	answer, _ := intercept.ToConnect(user.Invalid(violation))
	return answer
}
