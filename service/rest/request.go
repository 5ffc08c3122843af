package rest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/yourorg/userservice/service/jsonpb"
	"github.com/yourorg/userservice/service/transport"
	"github.com/yourorg/userservice/service/user"
)

const (
	etagField      = protoreflect.Name("etag")
	requestIDField = protoreflect.Name("request_id")
	maskField      = protoreflect.Name("update_mask")
	bodyName       = "body" // in violations of the body as a whole
)

// A call is a request on its way to its RPC.
type call struct {
	route     *route
	message   protoreflect.Message // from path, query, header and body
	etags     []string             // of If-Match; empty: there is none, or it is "*"
	requestID string               // of Idempotency-Key
	timeout   string               // in milliseconds; empty: none
}

// read reads a request into its message, each part once: path, query, header, body. ok
// is false where it was refused.
func (h *handler) read(w http.ResponseWriter, r *http.Request, rt *route, values []string, query string) (c *call, ok bool) {
	c = &call{route: rt, message: rt.input.New()}
	violations := c.readPath(values)
	violations = append(violations, c.readQuery(query)...)
	violations = append(violations, c.readHeader(r)...)
	if len(violations) > 0 {
		h.invalid(w, violations...)
		return nil, false
	}
	if refused, message := c.refuseBody(r); refused != 0 {
		if refused == http.StatusUnsupportedMediaType {
			w.Header().Set("Accept-Encoding", "gzip")
		}
		refuse(w, refused, message)
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
		h.bodyFailed(w, err)
		return nil, false
	}
	return c, true
}

func (c *call) readPath(values []string) []user.Violation {
	var violations []user.Violation
	for i, field := range c.route.variables {
		value, text, problem := parseScalar(field, values[i])
		if problem == "" && text != values[i] {
			problem = "must be written plainly"
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
			return []user.Violation{{Field: "query", Message: "must be empty: this call reads all from its body"}}
		}
	default:
		fixed = append(fixed[:len(fixed):len(fixed)], c.bodyField())
	}
	return readQuery(query, c.message, fixed...)
}

// bodyField returns the field that the body is.
func (c *call) bodyField() protoreflect.FieldDescriptor { return fieldNamed(c.message, c.route.body) }

// refuseBody returns the HTTP code for a body of a kind that the call does not read, 0
// where all is well.
func (c *call) refuseBody(r *http.Request) (status int, message string) {
	if _, ok := codingOf(r); !ok {
		return http.StatusUnsupportedMediaType, "a body may be compressed with gzip only"
	}
	if c.route.body == "" {
		return 0, ""
	}
	types := r.Header["Content-Type"]
	empty := r.ContentLength == 0
	switch {
	case len(types) == 0 && empty, len(types) == 1 && isJSON(types[0]):
		return 0, ""
	default:
		return http.StatusUnsupportedMediaType, "the body must be application/json in UTF-8"
	}
}

// readBody returns the body, decompressed, within the limit of a message.
func (h *handler) readBody(r *http.Request, c *call) ([]byte, error) {
	if c.route.body == "" {
		var first [1]byte
		if n, _ := io.ReadFull(r.Body, first[:]); n > 0 {
			return nil, newBodyError("must be empty: this call reads no body")
		}
		return nil, nil
	}
	coding, _ := codingOf(r)
	return h.opts.Messages.ReadBody(r, coding != "", int64(h.opts.MaxMessageBytes), jsonDecodings)
}

// decode reads the body into the message. The body may repeat what the path says, and
// must not contradict it.
func (c *call) decode(body []byte) error {
	if c.route.body == "" {
		return nil
	}
	var target protoreflect.Message
	if c.route.body == wholeBody {
		target = c.route.input.New()
	} else {
		if len(body) == 0 {
			return user.NewFieldErrorf(c.route.body, "the body is required")
		}
		target = c.message.Mutable(c.bodyField()).Message()
	}
	if len(bytes.TrimSpace(body)) == 0 {
		body = []byte("{}")
	}
	if err := jsonpb.Unmarshal(body, target.Interface()); err != nil {
		return jsonFault(err)
	}
	if c.route.body != wholeBody {
		return c.maskOf(body, target)
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

// maskOf sets the update mask of a request that brings none to the members of the body,
// so that an empty value clears its field. Members that the server alone sets are not in
// it: a caller may send back what it was sent.
func (c *call) maskOf(body []byte, target protoreflect.Message) error {
	mask := c.message.Descriptor().Fields().ByName(maskField)
	if mask == nil || c.message.Has(mask) {
		return nil
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(body, &members); err != nil {
		return newBodyError("is not JSON")
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

func isOutputOnly(field protoreflect.FieldDescriptor) bool {
	behavior, _ := proto.GetExtension(field.Options(), annotations.E_FieldBehavior).([]annotations.FieldBehavior)
	return slices.Contains(behavior, annotations.FieldBehavior_OUTPUT_ONLY)
}

// jsonFault is the error for a body that is not the JSON of a message.
func jsonFault(err error) error {
	wrong := (*jsonpb.Error)(nil)
	if !errors.As(err, &wrong) {
		return newBodyError("is not JSON of the expected form")
	}
	field := wrong.Field
	if field == "" {
		field = bodyName
	}
	return user.NewFieldErrorf(field, "%s", wrong.Description())
}

// bodyFailed answers that the body could not be read.
func (h *handler) bodyFailed(w http.ResponseWriter, err error) {
	var failure *connect.Error
	switch known, ok := user.AsError(err); {
	case ok:
		h.refuseError(w, known)
	case errors.As(err, new(*transport.GzipError)):
		h.invalid(w, user.Violation{Field: bodyName, Message: "is not what its Content-Encoding says"})
	case errors.As(err, &failure):
		s := statusOf(failure)
		h.refusedAs(reason(s))
		writeStatus(w, httpCode(s), s)
	default:
		h.invalid(w, user.Violation{Field: bodyName, Message: "ended early"})
	}
}

// refusedAs tells the reason of a refusal, but for those that were told where they were
// made.
func (h *handler) refusedAs(why user.Reason) {
	if why != user.MessageTooLarge && why != user.Overloaded {
		h.opts.Refused(why)
	}
}

// request returns the request for the Connect handler.
func (c *call) request(r *http.Request, body []byte) *http.Request {
	procedure := c.route.procedure()
	out := r.WithContext(r.Context())
	out.Method, out.URL, out.RequestURI = http.MethodPost, &url.URL{Path: procedure}, procedure
	out.Header = make(http.Header, len(r.Header))
	forward(out.Header, r.Header)
	out.Header.Set("Content-Type", typeProto)
	out.Header.Set("Connect-Protocol-Version", "1")
	out.Header.Set("Content-Length", strconv.Itoa(len(body)))
	if c.timeout != "" {
		out.Header.Set("Connect-Timeout-Ms", c.timeout)
	}
	out.Body, out.ContentLength, out.TransferEncoding = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
	return out
}
