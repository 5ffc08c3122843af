package rest

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"log/slog"
	"net/http"
	"slices"
	"strconv"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/rpcstatus"
	"github.com/yourorg/userservice/service/user"
)

// serveUnary converts a request, calls the RPC and writes the response as JSON.
func (h *handler) serveUnary(w http.ResponseWriter, r *http.Request, rt *route, values []string) {
	c, ok := h.read(w, r, rt, values, r.URL.RawQuery)
	if !ok {
		return
	}
	res, err := h.invoke(r, c)
	if err != nil {
		h.internalError(w, r, err)
		return
	}
	forward(w.Header(), res.header)
	if res.failure != nil {
		writeStatus(w, c.httpCode(res.failure), res.failure)
		return
	}
	body, err := marshalJSON(nil, res.message, c.fields()...)
	if err != nil {
		h.internalError(w, r, err)
		return
	}
	if etag := etagOfWrite(r.Method, res.message); etag != "" {
		w.Header().Set(EtagHeader, etag)
	}
	h.writeJSON(w, r, append(body, '\n'))
}

// invoke calls the RPC. If-Match may have several tags, but the message holds one: after a
// mismatch it retries with the current tag of the user, or with each remaining tag if the caller
// may not see the current one.
func (h *handler) invoke(r *http.Request, c *call) (*rpcResponse, error) {
	left := c.etags
	for {
		request, err := proto.Marshal(c.message.Interface())
		if err != nil {
			return nil, err
		}
		w := &recorder{header: make(http.Header)}
		h.opts.Handler.ServeHTTP(w, c.request(r, request))
		res, err := w.response(c.route.output)
		if err != nil || res.failure == nil || reason(res.failure) != user.EtagMismatch || len(left) == 0 {
			return res, err
		}
		left = left[1:]
		if current := detail[*errdetails.ErrorInfo](res.failure).GetMetadata()["etag"]; current != "" {
			left = slices.DeleteFunc(slices.Clone(left), func(tag string) bool { return tag != current })
		}
		if len(left) == 0 {
			return res, nil
		}
		c.set(etagField, left[0])
	}
}

func (c *call) httpCode(s *status.Status) int {
	if len(c.etags) > 0 && reason(s) == user.EtagMismatch {
		return http.StatusPreconditionFailed
	}
	return httpCode(s)
}

func (c *call) fields() []string {
	request, ok := c.message.Interface().(interface{ GetFields() []string })
	if !ok {
		return nil
	}
	return request.GetFields()
}

// internalError writes the response to an internal error of the conversion.
func (h *handler) internalError(w http.ResponseWriter, r *http.Request, err error) {
	incident := rand.Text()
	h.opts.Logger.LogAttrs(r.Context(), slog.LevelError, "REST conversion failed",
		slog.String("incident", incident), slog.Any("error", err))
	writeStatus(w, http.StatusInternalServerError, rpcstatus.Internal(incident))
}

// etagOfWrite returns the entity tag of the user returned by a write, or "".
func etagOfWrite(method string, message protoreflect.ProtoMessage) string {
	written, ok := message.(interface{ GetUser() *userv1.User })
	if !ok || method == http.MethodGet || method == http.MethodHead || written.GetUser().GetEtag() == "" {
		return ""
	}
	return `"` + written.GetUser().GetEtag() + `"`
}

// writeJSON writes a response body.
func (h *handler) writeJSON(w http.ResponseWriter, r *http.Request, body []byte) {
	header := w.Header()
	header.Set("Content-Type", typeJSON)
	header.Set("X-Content-Type-Options", "nosniff")
	if header.Get(EtagHeader) == "" || r.Method != http.MethodGet && r.Method != http.MethodHead {
		header.Set("Cache-Control", "no-store")
	}
	// A response with an entity tag is not compressed, because that would change the tag.
	if header.Get(EtagHeader) == "" {
		header.Add("Vary", "Accept-Encoding")
		if len(body) >= compressMinBytes && r.Method != http.MethodHead && acceptsGzip(r) {
			header.Set("Content-Encoding", "gzip")
			packed := h.opts.Compressors.New()
			packed.Reset(w)
			_, _ = packed.Write(body) // the client may have disconnected
			_ = packed.Close()
			return
		}
	}
	header.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(body) //nolint:gosec // JSON, not HTML; the client may have disconnected
}

// recorder records the response of the Connect handler.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header implements http.ResponseWriter.
func (w *recorder) Header() http.Header { return w.header }

// WriteHeader records the first final status.
func (w *recorder) WriteHeader(status int) {
	if w.status == 0 && status >= http.StatusOK {
		w.status = status
	}
}

// Write records the body.
func (w *recorder) Write(data []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(data)
}

// rpcResponse is the result of an RPC: a message or an error.
type rpcResponse struct {
	header  http.Header
	message proto.Message
	failure *status.Status
}

// response decodes the recorded response. An error is internal and not meant for clients.
func (w *recorder) response(output protoreflect.MessageType) (*rpcResponse, error) {
	res := &rpcResponse{header: w.header}
	w.WriteHeader(http.StatusOK) // if the handler did not
	if w.status == http.StatusOK && w.header.Get("Content-Type") == typeProto {
		res.message = output.New().Interface()
		return res, proto.Unmarshal(w.body.Bytes(), res.message)
	}
	s, err := readConnectError(w.body.Bytes())
	if err != nil {
		return nil, &transcodeError{status: w.status, contentType: w.header.Get("Content-Type")}
	}
	if !safeToSend(s) {
		return nil, &transcodeError{status: w.status, text: s.GetMessage()}
	}
	res.header.Del(EtagHeader)
	res.failure = s
	return res, nil
}

// transcodeError is a response that cannot be converted.
type transcodeError struct {
	status            int
	contentType, text string
}

func (e *transcodeError) Error() string {
	return "HTTP status " + strconv.Itoa(e.status) + ", content type " + strconv.Quote(e.contentType) + ": " + e.text
}

// safeToSend reports whether an error may be sent to the client. An internal error without a
// reason does not come from the service, so its text may contain internals.
func safeToSend(s *status.Status) bool {
	switch code.Code(s.GetCode()) {
	case code.Code_INTERNAL, code.Code_UNKNOWN, code.Code_DATA_LOSS, code.Code_OK:
		return reason(s) != ""
	default:
		return true
	}
}

// readConnectError decodes an error of Connect's unary protocol.
func readConnectError(body []byte) (*status.Status, error) {
	var wire struct {
		Code    connect.Code `json:"code"`
		Message string       `json:"message"`
		Details []struct {
			Type  string `json:"type"`
			Value string `json:"value"`
		} `json:"details"`
	}
	if err := json.Unmarshal(body, &wire); err != nil {
		return nil, err
	}
	s := &status.Status{Code: int32(wire.Code), Message: wire.Message}
	for _, d := range wire.Details {
		value, err := connect.DecodeBinaryHeader(d.Value)
		if err != nil {
			return nil, err
		}
		s.Details = append(s.Details, packedDetail(d.Type, value))
	}
	return s, nil
}
