// Package rest serves the RPCs of user.v1.UserService as REST: the routes of the
// google.api.http annotations below /api/v1/, event streams, and the OpenAPI document.
//
// It is not a second implementation. A request is converted once, from path, query, header and
// body, to the message of its RPC, and passed to the RPC with all its interceptors. A stream is passed to the Connect handler, which
// returns the messages of the response (see Interceptor). An invalid request gets a 4xx status and a google.rpc.Status in JSON with a
// violation for each field, and does not reach the RPC.
//
// Authentication, CORS and timeouts are the task of the middleware around it.
package rest

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/codec"
	"github.com/yourorg/userservice/service/httperror"
	"github.com/yourorg/userservice/service/rpc"
	"github.com/yourorg/userservice/service/user"
)

const (
	// Prefix is the path prefix of the routes.
	Prefix = "/api/v1/"
	// OpenAPIPath is the path of the OpenAPI document.
	OpenAPIPath = "/openapi.yaml"

	defaultHeartbeat = 15 * time.Second
)

// Options configure the handler. All are required except Heartbeat.
type Options struct {
	// Methods are the unary RPCs with their interceptors.
	Methods rpc.Methods
	// Handler is the Connect handler of user.v1.UserService with its interceptors, the
	// outermost of which is Interceptor. It serves the streams.
	Handler http.Handler
	// MaxMessageBytes is the maximum size of a request body, before and after
	// decompression.
	MaxMessageBytes int64
	// Heartbeat is the maximum idle time of an event stream. Default: 15 s.
	Heartbeat time.Duration
	// Authorize is called before the body is read. It returns an error if the caller in ctx
	// may not call the procedure.
	Authorize func(ctx context.Context, procedure string) error
	// Messages reads request bodies.
	Messages *codec.Messages
	// Compressors compress responses.
	Compressors *codec.Compressors
	// Refused is called with the reason of each rejection before an RPC, unless Messages
	// has reported it.
	Refused func(user.Reason)
	// Logger logs internal errors.
	Logger *slog.Logger
}

// handler is safe for concurrent use.
type handler struct {
	opts      Options
	resources []*resource
	document  http.Handler
}

// New returns the handler for Prefix and OpenAPIPath.
func New(opts Options) (http.Handler, error) {
	if opts.Heartbeat <= 0 {
		opts.Heartbeat = defaultHeartbeat
	}
	service := userv1.File_user_v1_user_service_proto.Services().ByName("UserService")
	resources, err := resourcesOf(service)
	if err != nil {
		return nil, fmt.Errorf("rest: %w", err)
	}
	h := &handler{opts: opts, resources: resources, document: documentHandler()}
	if err := h.addStreams(service.Methods()); err != nil {
		return nil, fmt.Errorf("rest: %w", err)
	}
	return h, nil
}

// addStreams adds the routes of streams. They are not annotated in the proto, because two RPCs
// unsupported share a route there.
func (h *handler) addStreams(methods protoreflect.MethodDescriptors) error {
	for _, s := range []struct {
		rpc      protoreflect.Name
		method   string
		template string
		body     string
		open     func(*call, lastEvent, string) streamOptions
	}{
		{"StreamUserActivities", http.MethodGet, Prefix + "users/{user_id}/activities", "", openActivities},
		{"WatchUserStatus", http.MethodGet, Prefix + "users:watchStatus", "", openStatuses},
		{"WatchUserStatus", http.MethodPost, Prefix + "users:watchStatus", wholeBody, openStatuses},
		{"WatchUsers", http.MethodGet, Prefix + "users:watch", "", openUsers},
	} {
		rpc := methods.ByName(s.rpc)
		segments, verb, ok := parseTemplate(s.template)
		if rpc == nil || !ok {
			return fmt.Errorf("%s: unknown RPC or invalid path", s.rpc)
		}
		rt, err := newRoute(rpc, segments, s.body)
		if err != nil {
			return err
		}
		h.resources = withResource(h.resources, segments, verb)
		resourceAt(h.resources, segments, verb).streams[s.method] = &streamRoute{
			route: rt, formats: []string{typeEvents, typeLines}, open: s.open,
		}
	}
	return nil
}

// ServeHTTP routes a request by path, method and Accept.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == OpenAPIPath {
		h.document.ServeHTTP(w, r)
		return
	}
	res, variables := h.find(r)
	if res == nil {
		refuse(w, http.StatusNotFound, "no resource at this path")
		return
	}
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	route := res.routes[method]
	if stream := res.streams[method]; stream != nil {
		w.Header().Add("Vary", "Accept")
		format, ok := res.negotiate(r, method)
		if !ok {
			refuse(w, http.StatusNotAcceptable, "not acceptable, available: "+strings.Join(res.offers(method), ", "))
			return
		}
		if format != typeJSON {
			if r.Method == http.MethodHead {
				w.Header().Set("Allow", http.MethodGet)
				refuse(w, http.StatusMethodNotAllowed, "HEAD is not supported for streams")
				return
			}
			if h.authorized(w, r, stream.route) {
				h.serveStream(w, r, stream, format, variables)
			}
			return
		}
	}
	if route == nil {
		w.Header().Set("Allow", res.allow())
		refuse(w, http.StatusMethodNotAllowed, "method not allowed, use "+res.allow())
		return
	}
	if !h.authorized(w, r, route) {
		return
	}
	h.serveUnary(ConditionalGet(w, r), r, route, variables)
}

// authorized reports whether the caller may call the RPC. If not, it has written a response.
func (h *handler) authorized(w http.ResponseWriter, r *http.Request, rt *route) bool {
	err := h.opts.Authorize(r.Context(), rt.procedure)
	if err == nil {
		return true
	}
	refused, ok := user.AsError(err)
	if !ok {
		refused = user.NewInternalError("")
	}
	httperror.SkipRequestBody(w, r)
	h.refuseError(w, refused)
	return false
}
