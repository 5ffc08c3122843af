package server

import (
	"net/http"
	"path"
	"strings"

	"github.com/yourorg/userservice/service/httperror"
	"github.com/yourorg/userservice/service/protocol"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"connectrpc.com/grpcreflect"
	"google.golang.org/protobuf/reflect/protoreflect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/health"
	"github.com/yourorg/userservice/service/rest"
)

// procedureHandlers are the handlers of services by the path of each service.
type procedureHandlers map[string]http.Handler

// Handle adds the handler of a service.
func (h procedureHandlers) Handle(path string, handler http.Handler) { h[path] = handler }

// ServeHTTP calls the handler of the service in the path.
func (h procedureHandlers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	handler := h[path]
	if handler == nil {
		handler = h[path[:strings.LastIndexByte(path, '/')+1]]
	}
	if handler == nil {
		httperror.NotFound(w, r)
		return
	}
	handler.ServeHTTP(w, r)
}

// rpcMux returns the handler of all RPCs except those of additional services.
func rpcMux(
	service userv1connect.UserServiceHandler, checks *health.Health,
	serviceOptions, plainOptions connect.HandlerOption,
) procedureHandlers {
	mux := make(procedureHandlers)
	mux.Handle(userv1connect.NewUserServiceHandler(service, serviceOptions))
	mux.Handle(grpchealth.NewHandler(grpchealth.Checker(checks), plainOptions))
	mux.Handle(checks.WatchHandler(plainOptions))
	reflector := grpcreflect.NewStaticReflector(userv1connect.UserServiceName, grpchealth.HealthV1ServiceName)
	// Some tools only support v1alpha.
	mux.Handle(grpcreflect.NewHandlerV1(reflector, plainOptions))
	mux.Handle(grpcreflect.NewHandlerV1Alpha(reflector, plainOptions))
	return mux
}

// routes returns the handler of all paths of the public listener. Paths are not cleaned: a redirect is no response for the
// clients of RPCs.
func routes(rpc, resources http.Handler, c *callers, additional []Service) http.Handler {
	hints, document := notRPC(serveHints(c)), notRPC(resources)
	check, called := checkRPC(), procedures(additional)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := r.URL.Path
		_, isRPC := called[path]
		switch {
		case isRPC:
			if check(w, r) {
				rpc.ServeHTTP(rest.ConditionalGet(w, r), r)
			}
		case strings.HasPrefix(path, rest.Prefix): // they implement conditional requests themselves
			resources.ServeHTTP(w, r)
		case path == rest.OpenAPIPath && c.documented:
			document.ServeHTTP(w, r)
		case path == "/" && (r.Method == http.MethodGet || r.Method == http.MethodHead):
			hints.ServeHTTP(w, r)
		default:
			httperror.NotFound(w, r)
		}
	})
}

// procedures returns the path of each procedure, and whether its request is a stream.
func procedures(additional []Service) map[string]bool {
	streaming := map[string]bool{protocol.HealthPath + "Check": false, protocol.HealthWatchPath: false}
	services := userv1.File_user_v1_user_service_proto.Services()
	for i := range services.Len() {
		methods := services.Get(i).Methods()
		for j := range methods.Len() {
			streaming[procedure(methods.Get(j))] = methods.Get(j).IsStreamingClient()
		}
	}
	for _, version := range []string{"v1", "v1alpha"} {
		streaming["/grpc.reflection."+version+".ServerReflection/ServerReflectionInfo"] = true
	}
	for i := range additional {
		additional[i].procedures(func(procedure string, isStreaming bool) { streaming[procedure] = isStreaming })
	}
	return streaming
}

// streamedResponses returns a function that reports whether the response of a request is a stream.
func streamedResponses(additional []Service) func(*http.Request) bool {
	streamed := map[string]bool{protocol.HealthWatchPath: true}
	descriptors := []protoreflect.ServiceDescriptor{userv1.File_user_v1_user_service_proto.Services().ByName("UserService")}
	for i := range additional {
		descriptors = append(descriptors, additional[i].Descriptor)
	}
	for _, descriptor := range descriptors {
		for i := range descriptor.Methods().Len() {
			if method := descriptor.Methods().Get(i); method.IsStreamingServer() {
				streamed[procedure(method)] = true
			}
		}
	}
	return func(r *http.Request) bool {
		return streamed[r.URL.Path] || strings.HasPrefix(r.URL.Path, protocol.ReflectionPath)
	}
}

// streamingBody returns a function that reports whether the body of a request is a stream; false for
// unknown paths.
func streamingBody(additional []Service) func(*http.Request) bool {
	streaming := procedures(additional)
	return func(r *http.Request) bool { return streaming[r.URL.Path] }
}

func procedure(method protoreflect.MethodDescriptor) string {
	return path.Join("/", string(method.Parent().FullName()), string(method.Name()))
}
