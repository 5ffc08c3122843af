package server

import (
	"net/http"
	"path"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"connectrpc.com/grpcreflect"
	"google.golang.org/protobuf/reflect/protoreflect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
)

// rpcMux returns what serves RPCs, by their paths.
func rpcMux(
	service userv1connect.UserServiceHandler, checker grpchealth.Watcher,
	serviceOptions, plainOptions connect.HandlerOption,
) *http.ServeMux {
	mux := http.NewServeMux()
	mux.Handle(userv1connect.NewUserServiceHandler(service, serviceOptions))
	mux.Handle(grpchealth.NewHandler(checker, plainOptions))
	reflector := grpcreflect.NewStaticReflector(userv1connect.UserServiceName)
	// Tools still ask for the older form of reflection.
	mux.Handle(grpcreflect.NewHandlerV1(reflector, plainOptions))
	mux.Handle(grpcreflect.NewHandlerV1Alpha(reflector, plainOptions))
	return mux
}

// routes are all that the public port serves.
func routes(rpc, rest http.Handler) *http.ServeMux {
	mux := http.NewServeMux()
	mux.Handle("/", rpc)
	mux.HandleFunc("GET /{$}", servePage)
	if rest != nil {
		mux.Handle("/api/v1/", rest)
		mux.Handle("/openapi.yaml", rest)
	}
	return mux
}

// openEnded returns a function that reports whether the body of a request is a
// stream. What it does not know is taken for a call of one message.
func openEnded() func(*http.Request) bool {
	open := make(map[string]bool)
	services := userv1.File_user_v1_user_service_proto.Services()
	for i := range services.Len() {
		methods := services.Get(i).Methods()
		for j := range methods.Len() {
			if method := methods.Get(j); method.IsStreamingClient() {
				open[procedure(method)] = true
			}
		}
	}
	for _, version := range []string{"v1", "v1alpha"} {
		open["/grpc.reflection."+version+".ServerReflection/ServerReflectionInfo"] = true
	}
	return func(r *http.Request) bool { return open[r.URL.Path] }
}

func procedure(method protoreflect.MethodDescriptor) string {
	return path.Join("/", string(method.Parent().FullName()), string(method.Name()))
}
