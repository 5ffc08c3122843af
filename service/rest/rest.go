// Package rest serves the RPCs of user.v1.UserService as plain HTTP and JSON: the
// routes that the proto's annotations name under /api/v1/, the event streams, and
// the OpenAPI document.
//
// It promises that there is one implementation: every request ends in the Connect
// handler that it was given, with all its interceptors, in the caller's own context.
// A request is read once into the message of its RPC, from path, query, header and
// body; the handler is called within the process with that message. What a caller gets
// wrong is answered with 4xx and a google.rpc.Status as JSON, in which each field is
// named; such a request does not reach an RPC.
//
// It leaves alone who is calling, what browsers may do from elsewhere, and how long
// a connection may take: that is for the middleware around it.
package rest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/intercept"
	"github.com/yourorg/userservice/service/transport"
	"github.com/yourorg/userservice/service/user"
)

const (
	// Prefix is where the routes begin.
	Prefix = "/api/v1/"
	// OpenAPIPath is where the OpenAPI document is.
	OpenAPIPath = "/openapi.yaml"

	defaultMessageBytes = 4 << 20
	defaultHeartbeat    = 15 * time.Second
)

// FlushControl says when what a stream has written is to be sent.
type FlushControl interface {
	// Hold keeps what is written from now on.
	Hold()
	// Release sends what was kept; it is called before waiting for anything.
	Release()
}

// Options are what the handler is made of.
type Options struct {
	// Handler is the Connect handler of user.v1.UserService with its interceptors.
	// It must not answer conditional requests itself. Required.
	Handler http.Handler
	// WithFlusher returns a context whose stream is sent as the control says. A
	// stream within the process must not move the connection's own control, which
	// another goroutine writes to. Required.
	WithFlusher func(context.Context, FlushControl) context.Context
	// MaxMessageBytes bounds a request's body, before and after decompression; an
	// answer may be as many times larger as JSON is than the binary form. 0: 4 MiB.
	MaxMessageBytes int
	// Heartbeat is how long an event stream stays silent at most. 0: 15 s.
	Heartbeat time.Duration
	// TooLarge is the answer to a message beyond the limit. nil: intercept.NewTooLargeError.
	TooLarge func(limit int64) error
	// Authorize, if set, returns why the caller in the context may not call the procedure.
	// It is asked before a body is read.
	Authorize func(ctx context.Context, procedure string) error
	// Messages reads bodies. nil: one without a limit of memory.
	Messages *transport.Messages
	// Compressors are those of responses. nil: a set of their own.
	Compressors *transport.Compressors
	// Refused, if set, is told the reason of each refusal that is given before an RPC is
	// reached, but for what TooLarge answers.
	Refused func(user.Reason)
	// Logger gets failures that no caller can be told of. nil: none does.
	Logger *slog.Logger
}

// handler is safe for use by many goroutines.
type handler struct {
	opts      Options
	resources []*resource
	document  http.Handler
	streams   streamClients
}

// New returns the handler for Prefix and OpenAPIPath.
func New(opts Options) (http.Handler, error) {
	switch {
	case opts.Handler == nil:
		return nil, errors.New("rest: no handler")
	case opts.WithFlusher == nil:
		return nil, errors.New("rest: no way to set the flush control of a stream")
	}
	if opts.MaxMessageBytes <= 0 {
		opts.MaxMessageBytes = defaultMessageBytes
	}
	if opts.Heartbeat <= 0 {
		opts.Heartbeat = defaultHeartbeat
	}
	if opts.TooLarge == nil {
		opts.TooLarge = func(limit int64) error { return intercept.NewTooLargeError(limit) }
	}
	if opts.Authorize == nil {
		opts.Authorize = func(context.Context, string) error { return nil }
	}
	if opts.Messages == nil {
		opts.Messages = newMessages(opts)
	}
	if opts.Compressors == nil {
		opts.Compressors = transport.NewCompressors()
	}
	if opts.Refused == nil {
		opts.Refused = func(user.Reason) {}
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	service := userv1.File_user_v1_user_service_proto.Services().ByName("UserService")
	resources, err := resourcesOf(service)
	if err != nil {
		return nil, fmt.Errorf("rest: %w", err)
	}
	h := &handler{
		opts: opts, resources: resources,
		document: documentHandler(), streams: newStreamClients(opts),
	}
	if err := h.addStreams(service.Methods()); err != nil {
		return nil, fmt.Errorf("rest: %w", err)
	}
	return h, nil
}

// addStreams gives the streams their places. They have no annotation in the proto,
// because two RPCs cannot share a route there.
func (h *handler) addStreams(methods protoreflect.MethodDescriptors) error {
	for _, s := range []struct {
		rpc      protoreflect.Name
		method   string
		template string
		body     string
		open     func(*call, lastEvent, string) opened
	}{
		{"StreamUserActivities", http.MethodGet, Prefix + "users/{user_id}/activities", "", h.openActivities},
		{"WatchUserStatus", http.MethodGet, Prefix + "users:watchStatus", "", h.openStatuses},
		{"WatchUserStatus", http.MethodPost, Prefix + "users:watchStatus", wholeBody, h.openStatuses},
	} {
		rpc := methods.ByName(s.rpc)
		segments, verb, ok := parseTemplate(s.template)
		if rpc == nil || !ok {
			return fmt.Errorf("%s: no such RPC or path", s.rpc)
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

// ServeHTTP finds the resource that the path names, then what the method means.
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
			refuse(w, http.StatusNotAcceptable, "available as "+strings.Join(res.offers(method), ", "))
			return
		}
		if format != typeJSON {
			if r.Method == http.MethodHead {
				w.Header().Set("Allow", http.MethodGet)
				refuse(w, http.StatusMethodNotAllowed, "a stream has no HEAD")
				return
			}
			if h.authorized(w, r, stream.route.rpc) {
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
	if !h.authorized(w, r, route.rpc) {
		return
	}
	ConditionalGet(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.serveUnary(w, r, route, variables)
	})).ServeHTTP(w, r)
}

// authorized reports whether the caller may call the RPC; otherwise it has responded.
func (h *handler) authorized(w http.ResponseWriter, r *http.Request, rpc protoreflect.MethodDescriptor) bool {
	err := h.opts.Authorize(r.Context(), "/"+string(rpc.Parent().FullName())+"/"+string(rpc.Name()))
	if err == nil {
		return true
	}
	refused, ok := user.AsError(err)
	if !ok {
		refused = user.NewInternalError("")
	}
	if r.ProtoMajor == 1 && r.ContentLength != 0 {
		w.Header().Set("Connection", "close") // or net/http would wait for the body first
	}
	h.refuseError(w, refused)
	return false
}
