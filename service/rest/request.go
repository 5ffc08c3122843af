package rest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/yourorg/userservice/service/httperror"
	"github.com/yourorg/userservice/service/rpcstatus"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/yourorg/userservice/service/codec"
	"github.com/yourorg/userservice/service/jsonpb"
	"github.com/yourorg/userservice/service/user"
)

const (
	etagField      = protoreflect.Name("etag")
	requestIDField = protoreflect.Name("request_id")
	maskField      = protoreflect.Name("update_mask")
	bodyName       = "body" // field name in violations of the whole body
)

// A call is a request that is converted to its RPC.
type call struct {
	route     *route
	message   protoreflect.Message // from path, query, header and body
	etags     []string             // of If-Match; empty if absent or "*"
	requestID string               // of Idempotency-Key
	timeout   time.Duration        // 0: none
}

// read builds the request message from path, query, header and body. If ok is false an error
// response was written.
func (h *handler) read(w http.ResponseWriter, r *http.Request, rt *route, values []string, query string) (c *call, ok bool) {
	c = &call{route: rt, message: rt.input.New()}
	violations := c.readPath(values)
	violations = append(violations, c.readQuery(query)...)
	violations = append(violations, c.readHeader(r)...)
	if len(violations) > 0 {
		h.invalid(w, violations...)
		return nil, false
	}
	if message := c.unsupported(w.Header(), r); message != "" {
		refuse(w, http.StatusUnsupportedMediaType, message)
		return nil, false
	}
	body, err := h.readBody(r, c)
	if err == nil {
		err = c.decode(body)
	}
	if err == nil {
		err = c.applyHeader()
	}
	if err != nil {
		h.writeBodyError(w, err)
		return nil, false
	}
	return c, true
}

func (c *call) readPath(values []string) []user.Violation {
	var violations []user.Violation
	for i, field := range c.route.variables {
		value, text, problem := parseScalar(field, values[i])
		if problem == "" && text != values[i] {
			problem = "must be in canonical form"
		}
		if problem != "" {
			violations = append(violations, user.Violation{Field: string(field.Name()), Message: problem})
			continue
		}
		c.message.Set(field, value)
	}
	return violations
}

func (c *call) readQuery(query string) []user.Violation {
	fixed := c.route.variables
	switch c.route.body {
	case "":
	case wholeBody:
		if query != "" {
			return []user.Violation{{Field: "query", Message: "must be empty: parameters belong in the body"}}
		}
	default:
		fixed = append(fixed[:len(fixed):len(fixed)], c.bodyField())
	}
	return readQuery(query, c.message, fixed...)
}

func (c *call) bodyField() protoreflect.FieldDescriptor { return fieldNamed(c.message, c.route.body) }

// unsupported returns an error message for an unsupported encoding or type of the body, else "". It sets the header with
// what is supported.
func (c *call) unsupported(header http.Header, r *http.Request) (message string) {
	if _, ok := contentCoding(r); !ok {
		header.Set("Accept-Encoding", "gzip")
		return "Content-Encoding must be gzip or absent"
	}
	types := r.Header["Content-Type"]
	switch {
	case c.route.body == "", len(types) == 0 && r.ContentLength == 0, len(types) == 1 && isJSON(types[0]):
		return ""
	default:
		header.Set("Accept", typeJSON)
		return "Content-Type must be application/json in UTF-8"
	}
}

// readBody returns the decompressed body.
func (h *handler) readBody(r *http.Request, c *call) ([]byte, error) {
	if c.route.body == "" {
		var first [1]byte
		if n, _ := io.ReadFull(r.Body, first[:]); n > 0 {
			return nil, newBodyError("must be empty for this method")
		}
		return nil, nil
	}
	coding, _ := contentCoding(r)
	return h.opts.Messages.ReadBody(r, coding != "", h.opts.MaxMessageBytes)
}

// decode decodes the body into the message. Fields that the path also sets must be equal.
func (c *call) decode(body []byte) error {
	if c.route.body == "" {
		return nil
	}
	var target protoreflect.Message
	if c.route.body == wholeBody {
		target = c.route.input.New()
	} else {
		if len(body) == 0 {
			return user.NewFieldErrorf(c.route.body, "required")
		}
		target = c.message.Mutable(c.bodyField()).Message()
	}
	if len(bytes.TrimSpace(body)) == 0 {
		body = []byte("{}")
	}
	if err := jsonpb.Unmarshal(body, target.Interface()); err != nil {
		return newJSONError(err)
	}
	if c.route.body != wholeBody {
		return c.setMask(body, target)
	}
	for _, field := range c.route.variables {
		if target.Has(field) && !target.Get(field).Equal(c.message.Get(field)) {
			return user.NewFieldErrorf(string(field.Name()), "differs from the path")
		}
		target.Set(field, c.message.Get(field))
	}
	c.message = target
	return nil
}

// setMask sets a missing update mask to the members of the body, so that an empty value clears
// its field. Output-only members are ignored, so that a client can send back a received user.
func (c *call) setMask(body []byte, target protoreflect.Message) error {
	mask := c.message.Descriptor().Fields().ByName(maskField)
	if mask == nil || c.message.Has(mask) {
		return nil
	}
	var members map[string]skipped
	if err := json.Unmarshal(body, &members); err != nil {
		return newBodyError("must be valid JSON")
	}
	var paths []string
	for name := range members {
		if field := fieldNamed(target, name); field != nil && !isOutputOnly(field) {
			paths = append(paths, string(field.Name()))
		}
	}
	if len(paths) > 0 {
		slices.Sort(paths)
		c.message.Set(mask, protoreflect.ValueOfMessage((&fieldmaskpb.FieldMask{Paths: paths}).ProtoReflect()))
	}
	return nil
}

// skipped is a JSON value that is not decoded.
type skipped struct{}

// UnmarshalJSON accepts any value.
func (*skipped) UnmarshalJSON([]byte) error { return nil }

func isOutputOnly(field protoreflect.FieldDescriptor) bool {
	behavior, _ := proto.GetExtension(field.Options(), annotations.E_FieldBehavior).([]annotations.FieldBehavior)
	return slices.Contains(behavior, annotations.FieldBehavior_OUTPUT_ONLY)
}

// newJSONError returns the error for an invalid JSON body.
func newJSONError(err error) error {
	jsonErr := (*jsonpb.Error)(nil)
	if !errors.As(err, &jsonErr) {
		return newBodyError("must be valid JSON")
	}
	field := jsonErr.Field
	if field == "" {
		field = bodyName
	}
	return user.NewFieldErrorf(field, "%s", jsonErr.Description())
}

// writeBodyError writes the response to a failed read of the body.
func (h *handler) writeBodyError(w http.ResponseWriter, err error) {
	var failure *connect.Error
	switch known, ok := user.AsError(err); {
	case ok:
		h.refuseError(w, known)
	case errors.As(err, new(*codec.GzipError)):
		h.invalid(w, user.Violation{Field: bodyName, Message: "does not match its Content-Encoding"})
	case errors.As(err, &failure):
		s := statusOf(failure)
		h.countRejection(rpcstatus.Reason(s))
		httperror.WriteStatus(w, httpCode(s), s)
	default:
		h.invalid(w, user.Violation{Field: bodyName, Message: "incomplete"})
	}
}

// countRejection reports a rejection, unless its origin has reported it.
func (h *handler) countRejection(cause user.Reason) {
	if cause != user.MessageTooLarge && cause != user.Overloaded {
		h.opts.Refused(cause)
	}
}
