package server

import (
	"net/http"
	"path"
	"strings"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"connectrpc.com/grpcreflect"
	"google.golang.org/protobuf/reflect/protoreflect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/rest"
)

// rpcMux returns what serves RPCs, by their paths.
func rpcMux(
	service userv1connect.UserServiceHandler, health *health,
	serviceOptions, plainOptions connect.HandlerOption,
) *http.ServeMux {
	mux := http.NewServeMux()
	mux.Handle(userv1connect.NewUserServiceHandler(service, serviceOptions))
	mux.Handle(grpchealth.NewHandler(grpchealth.Checker(health), plainOptions))
	mux.Handle(health.watchHandler(plainOptions))
	reflector := grpcreflect.NewStaticReflector(userv1connect.UserServiceName, grpchealth.HealthV1ServiceName)
	// Tools still ask for the older form of reflection.
	mux.Handle(grpcreflect.NewHandlerV1(reflector, plainOptions))
	mux.Handle(grpcreflect.NewHandlerV1Alpha(reflector, plainOptions))
	return mux
}

// routes are all that the public port serves.
func routes(rpc, resources http.Handler, c *callers, further []Service) *http.ServeMux {
	mux := http.NewServeMux()
	// Connect GET is as conditional as the resource, which sees to it by itself.
	calls := rest.ConditionalGet(checkRPC(rpc))
	for procedure := range procedures(further) {
		mux.Handle(procedure, calls)
	}
	mux.HandleFunc("/", newRefusals().unknown)
	mux.Handle("GET /{$}", notePlain(servePage(c)))
	mux.Handle(rest.Prefix, resources)
	if c.documented {
		mux.Handle(rest.OpenAPIPath, notePlain(resources))
	}
	return mux
}

// procedures are all that can be called, each with whether the body of its requests is
// a stream.
func procedures(further []Service) map[string]bool {
	open := map[string]bool{healthPath + "Check": false, healthPath + "Watch": false}
	services := userv1.File_user_v1_user_service_proto.Services()
	for i := range services.Len() {
		methods := services.Get(i).Methods()
		for j := range methods.Len() {
			open[procedure(methods.Get(j))] = methods.Get(j).IsStreamingClient()
		}
	}
	for _, version := range []string{"v1", "v1alpha"} {
		open["/grpc.reflection."+version+".ServerReflection/ServerReflectionInfo"] = true
	}
	for i := range further {
		further[i].procedures(func(procedure string, streaming bool) { open[procedure] = streaming })
	}
	return open
}

// streamedResponses returns a function that reports whether the response to a request is
// a stream.
func streamedResponses(further []Service) func(*http.Request) bool {
	streamed := map[string]bool{healthWatch: true}
	descriptors := []protoreflect.ServiceDescriptor{userv1.File_user_v1_user_service_proto.Services().ByName("UserService")}
	for i := range further {
		descriptors = append(descriptors, further[i].Descriptor)
	}
	for _, descriptor := range descriptors {
		for i := range descriptor.Methods().Len() {
			if method := descriptor.Methods().Get(i); method.IsStreamingServer() {
				streamed[procedure(method)] = true
			}
		}
	}
	return func(r *http.Request) bool {
		return streamed[r.URL.Path] || strings.HasPrefix(r.URL.Path, reflectionPath)
	}
}

// openEnded returns a function that reports whether the body of a request is a
// stream. What it does not know is taken for a call of one message.
func openEnded(further []Service) func(*http.Request) bool {
	open := procedures(further)
	return func(r *http.Request) bool { return open[r.URL.Path] }
}

func procedure(method protoreflect.MethodDescriptor) string {
	return path.Join("/", string(method.Parent().FullName()), string(method.Name()))
}
