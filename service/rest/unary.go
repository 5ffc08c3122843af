package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/yourorg/userservice/service/user"
)

const (
	etagField = protoreflect.Name("etag")

	// maxTimeoutSeconds bounds what a caller may ask for; it is more than a week.
	maxTimeoutSeconds = 1_000_000
)

// call is one unary call on its way to the transcoder.
type call struct {
	route  *route
	values []string   // of the path's variables
	query  url.Values // canonical
	etag   string     // what If-Match asks for; empty: nothing
}

// serveUnary checks all that the transcoder would misjudge, and hands on a request
// that leaves it no choice.
func (h *handler) serveUnary(w http.ResponseWriter, r *http.Request, rt *route, values []string) {
	panicIfPlanted("panic-in-rest")
	c := &call{route: rt, values: values}
	violations := c.readPath(r)
	violations = append(violations, c.readPrecondition(r)...)
	violations = append(violations, readTimeout(r)...)
	if len(violations) > 0 {
		h.invalid(w, violations...)
		return
	}
	if refused, message := c.refuseBody(r); refused != 0 {
		if refused == http.StatusUnsupportedMediaType {
			w.Header().Set("Accept-Encoding", "gzip")
		}
		refuse(w, refused, message)
		return
	}
	body, err := h.readBody(r, c)
	if err != nil {
		h.bodyFailed(w, err)
		return
	}
	a := &answer{
		ResponseWriter: w, log: h.opts.Logger, compressors: &h.compressors, request: r, refused: h.refusedAs,
		conditional: len(r.Header["If-Match"]) > 0,
	}
	h.unary.ServeHTTP(a, c.request(r, body, a))
	a.finish(r.Context())
}

// readPath reads the variables and the query.
func (c *call) readPath(r *http.Request) []user.Violation {
	var violations []user.Violation
	fixed := c.route.variables
	for i, field := range fixed {
		_, text, problem := parseScalar(field, c.values[i])
		if problem == "" && text != c.values[i] {
			problem = "must be written plainly"
		}
		if problem != "" {
			violations = append(violations, user.Violation{Field: string(field.Name()), Message: problem})
		}
	}
	message := c.route.input.New()
	if c.route.body == "*" {
		if r.URL.RawQuery != "" {
			violations = append(violations, user.Violation{Field: "query", Message: "this call takes all from its body"})
		}
		return violations
	}
	if c.route.body != "" {
		fixed = append(fixed[:len(fixed):len(fixed)], fieldNamed(message, c.route.body))
	}
	query, wrong := readQuery(r.URL.RawQuery, message, fixed...)
	c.query = query
	return append(violations, wrong...)
}

// readPrecondition turns If-Match into the etag of the request. What cannot be
// honoured is refused, because a caller relies on it.
func (c *call) readPrecondition(r *http.Request) []user.Violation {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return nil
	}
	if len(r.Header["If-None-Match"]) > 0 {
		return []user.Violation{{Field: "If-None-Match", Message: "is not supported for this method"}}
	}
	lines := r.Header["If-Match"]
	if len(lines) == 0 {
		return nil
	}
	if c.route.input.Descriptor().Fields().ByName(etagField) == nil {
		return []user.Violation{{Field: "If-Match", Message: "is not supported for this call"}}
	}
	tags, star, ok := parseTags(lines)
	switch {
	case star:
		return nil
	case !ok || len(tags) != 1 || tags[0].weak || tags[0].version() == "":
		return []user.Violation{{
			Field: "If-Match", Message: `must be one strong entity tag such as "1-abc", or *`,
		}}
	}
	c.etag = tags[0].version()
	if c.query == nil {
		return nil // it goes into the body
	}
	if given, has := c.query[string(etagField)]; has && given[0] != c.etag {
		return []user.Violation{{Field: string(etagField), Message: "differs from If-Match"}}
	}
	c.query.Set(string(etagField), c.etag)
	return nil
}

// readTimeout checks the header by which a REST caller says how long it waits.
func readTimeout(r *http.Request) []user.Violation {
	text := r.Header.Get("X-Server-Timeout")
	if text == "" {
		return nil
	}
	seconds, err := strconv.ParseFloat(text, 64)
	if err != nil || !(seconds > 0 && seconds <= maxTimeoutSeconds) {
		return []user.Violation{{Field: "X-Server-Timeout", Message: "must be a number of seconds"}}
	}
	return nil
}

// refuseBody returns the HTTP code for a body of a kind that the call does not take,
// 0 where all is well.
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

// readBody returns the body to hand on, within its limit.
func (h *handler) readBody(r *http.Request, c *call) (io.ReadCloser, error) {
	limit := int64(h.opts.MaxMessageBytes)
	body := &limitedBody{ReadCloser: r.Body, limit: limit, left: limit, tooLarge: h.opts.TooLarge}
	switch {
	case c.route.body == "":
		var first [1]byte
		if n, _ := io.ReadFull(body, first[:]); n > 0 {
			return nil, bodyFault("this call takes no body")
		}
		return http.NoBody, nil
	case c.route.body != "*" && r.ContentLength == 0:
		return nil, user.InvalidFieldf(c.route.body, "the body is required")
	case c.route.body == "*" && len(c.route.variables) > 0:
		return h.readObject(r, c, body)
	default:
		return body, nil
	}
}

// readObject reads a body that shares its fields with the path and with If-Match: it
// may repeat what they say, and must not contradict.
func (h *handler) readObject(r *http.Request, c *call, body io.Reader) (io.ReadCloser, error) {
	if coding, _ := codingOf(r); coding != "" {
		// As a whole, so that it can be measured before it is inflated.
		packed := new(bytes.Buffer)
		if _, err := packed.ReadFrom(body); err != nil {
			return nil, err
		}
		unpacked := newGunzip(int64(h.opts.MaxMessageBytes), h.opts.TooLarge)
		if err := unpacked.Reset(packed); err != nil {
			return nil, err
		}
		body = unpacked
	}
	data, err := io.ReadAll(body)
	if err != nil {
		return nil, err
	}
	if data, err = h.bounds.JSON(c.route.input.Descriptor().FullName(), data); err != nil {
		return nil, bodyFault(err.Error())
	}
	if len(bytes.TrimSpace(data)) == 0 {
		data = []byte("{}")
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(data, &object); err != nil || object == nil {
		if c.etag != "" {
			return nil, bodyFault("the body must be a JSON object")
		}
		return io.NopCloser(bytes.NewReader(data)), nil // the codec says what is wrong
	}
	for i, field := range c.route.variables {
		if given, has := member(object, field); has && given != c.values[i] {
			return nil, user.InvalidFieldf(string(field.Name()), "differs from the path")
		}
	}
	if c.etag != "" {
		given, has := member(object, c.route.input.Descriptor().Fields().ByName(etagField))
		switch {
		case has && given != c.etag:
			return nil, user.InvalidFieldf(string(etagField), "differs from If-Match")
		case !has:
			data = withMember(data, len(object) > 0, string(etagField), c.etag)
		}
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

// member returns a field of a JSON object as text, without the quotes of a string.
func member(object map[string]json.RawMessage, field protoreflect.FieldDescriptor) (text string, has bool) {
	for _, name := range []string{field.JSONName(), string(field.Name())} {
		raw, found := object[name]
		if !found {
			continue
		}
		if json.Unmarshal(raw, &text) != nil {
			text = string(raw)
		}
		return text, true
	}
	return "", false
}

// withMember puts a member first into a JSON object. The rest stays as it was
// written, so that what is wrong with it is still found.
func withMember(object []byte, more bool, name, value string) []byte {
	quoted, _ := json.Marshal(map[string]string{name: value}) // strings always can be
	quoted = quoted[:len(quoted)-1]
	if more {
		quoted = append(quoted, ',')
	}
	start := bytes.IndexByte(object, '{')
	return append(quoted, object[start+1:]...)
}

// bodyFailed answers that the body could not be read.
func (h *handler) bodyFailed(w http.ResponseWriter, err error) {
	var answer *connect.Error
	switch known, ok := user.AsError(err); {
	case ok:
		h.refuseError(w, known)
	case errors.As(err, &answer):
		s := statusOf(answer)
		h.refusedAs(s)
		writeStatus(w, httpCode(s.GetCode()), s)
	default:
		h.invalid(w, user.Violation{Field: "body", Message: "the body broke off"})
	}
}

// refusedAs tells the reason of a refusal, but for those that were told where they were
// made.
func (h *handler) refusedAs(s *status.Status) {
	switch why := reason(s); why {
	case user.MessageTooLarge, user.Overloaded:
	default:
		h.opts.Refused(why)
	}
}

// request returns the request as the transcoder gets it.
func (c *call) request(r *http.Request, body io.ReadCloser, a *answer) *http.Request {
	out := r.WithContext(context.WithValue(r.Context(), answerKey{}, a))
	out.Header = r.Header.Clone()
	for name := range out.Header {
		if strings.HasPrefix(name, "If-") || strings.HasPrefix(name, "Connect-") {
			delete(out.Header, name)
		}
	}
	for _, name := range []string{"Accept-Encoding", "Content-Type", "Content-Length"} {
		out.Header.Del(name)
	}
	if c.route.body != "" {
		out.Header.Set("Content-Type", typeJSON)
	}
	if _, streamed := body.(*limitedBody); !streamed {
		out.Header.Del("Content-Encoding") // it was undone, or there is no body
	} else if coding, _ := codingOf(r); coding != "" {
		out.Header.Set("Content-Encoding", coding)
	}
	if out.Method == http.MethodHead {
		out.Method = http.MethodGet
	}
	// The path's values were found to be plain, so there is nothing left in it that the
	// transcoder could unescape once more.
	out.URL = &url.URL{Path: r.URL.Path, RawQuery: c.query.Encode()}
	out.Body = body
	// With a length the transcoder would set the whole buffer aside before a byte came.
	out.ContentLength = -1
	return out
}
