package rest

import (
	"context"
	"net/http"
	"slices"
	"strconv"

	"github.com/yourorg/userservice/service/httperror"
	"github.com/yourorg/userservice/service/rpcstatus"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/codec"
	"github.com/yourorg/userservice/service/reqinfo"
	"github.com/yourorg/userservice/service/user"
)

// serveUnary converts a request, calls the RPC and writes the response as JSON.
func (h *handler) serveUnary(w http.ResponseWriter, r *http.Request, rt *route, values []string) {
	c, ok := h.read(w, r, rt, values, r.URL.RawQuery)
	if !ok {
		return
	}
	response, failure := h.call(w.Header(), r, c)
	if failure != nil {
		httperror.WriteStatus(w, c.httpCode(failure), failure)
		return
	}
	body, err := marshalJSON(nil, response, c.fields()...)
	if err != nil {
		httperror.WriteStatus(w, http.StatusInternalServerError, h.internalStatus(r.Context(), err))
		return
	}
	if etag := etagOfWrite(r.Method, response); etag != "" {
		w.Header().Set(EtagHeader, etag)
	}
	h.writeJSON(w, r, append(body, '\n'))
}

// call calls the RPC, which sets the response header. If-Match may have several tags, but the message
// holds one: after a mismatch it retries with the current tag of the user, or with each remaining tag
// if the caller may not see the current one. So does it if the request id was used, maybe with another tag.
func (h *handler) call(header http.Header, r *http.Request, c *call) (proto.Message, *status.Status) {
	ctx := reqinfo.With(r.Context(), reqinfo.ResponseHeader(header))
	left := c.etags
	for {
		response, err := h.callOnce(ctx, r, c)
		if err == nil {
			return response, nil
		}
		failure := h.statusOfRPC(r.Context(), err)
		if reason := rpcstatus.Reason(failure); len(left) > 0 && (reason == user.EtagMismatch || reason == user.RequestIDReused) {
			left = left[1:]
			if current := rpcstatus.Detail[*errdetails.ErrorInfo](failure).GetMetadata()["etag"]; current != "" {
				left = slices.DeleteFunc(slices.Clone(left), func(tag string) bool { return tag != current })
			}
			if len(left) > 0 {
				c.set(etagField, left[0])
				continue
			}
		}
		header.Del(EtagHeader)
		return nil, failure
	}
}

// callOnce calls the RPC within the timeout of the client.
func (h *handler) callOnce(ctx context.Context, r *http.Request, c *call) (proto.Message, error) {
	if c.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	return h.opts.Methods[c.route.procedure].Call(ctx, r, connect.ProtocolConnect, c.message.Interface())
}

func (c *call) httpCode(s *status.Status) int {
	if len(c.etags) > 0 && rpcstatus.Reason(s) == user.EtagMismatch {
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
		if len(body) >= codec.CompressMinBytes && acceptsGzip(r) {
			header.Set("Content-Encoding", "gzip")
			if r.Method == http.MethodHead { // the length is unknown
				w.WriteHeader(http.StatusOK)
				return
			}
			packed := h.opts.Compressors.New()
			packed.Reset(w)
			_, _ = packed.Write(body) // the client may have disconnected
			_ = packed.Close()
			return
		}
	}
	header.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(body) // JSON, not HTML; the client may have disconnected
}
