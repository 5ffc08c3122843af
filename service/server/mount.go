package server

import (
	"net/http"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/reflect/protoreflect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/intercept"
)

// Service is a further Connect service on the server's port. Its calls pass the same
// chain as those of user.v1.UserService: protocols, limits, authentication, validation
// by the rules of its proto, metrics, logs and drain. An error of its handlers that is a
// *connect.Error reaches the caller unchanged.
type Service struct {
	Descriptor protoreflect.ServiceDescriptor
	// Open lets everyone call it. Otherwise any authenticated caller may.
	Open bool
	// New returns the path of the service and its handler, as the constructors that
	// protoc-gen-connect-go generates do.
	New func(...connect.HandlerOption) (path string, handler http.Handler)
}

// procedures calls yield with each procedure of the service, and with whether its
// request is a stream.
func (s *Service) procedures(yield func(procedure string, streaming bool)) {
	methods := s.Descriptor.Methods()
	for i := range methods.Len() {
		yield(procedure(methods.Get(i)), methods.Get(i).IsStreamingClient())
	}
}

// mounted reports whether the path belongs to a further service.
func (s *Server) mounted(path string) bool {
	for i := range s.services {
		if strings.HasPrefix(path, "/"+string(s.services[i].Descriptor.FullName())+"/") {
			return true
		}
	}
	return false
}

// tooLargeOf counts a message that is too large and returns the error for it.
func (s *Server) tooLargeOf(r *http.Request, limit int64) error {
	if s.mounted(r.URL.Path) {
		return intercept.NewPlainTooLargeError(limit)
	}
	return s.tooLarge(limit)
}

// protoFiles are the files that declare what the server serves.
func (s *Server) protoFiles() []protoreflect.FileDescriptor {
	files := []protoreflect.FileDescriptor{userv1.File_user_v1_user_service_proto}
	for i := range s.services {
		files = append(files, s.services[i].Descriptor.ParentFile())
	}
	return files
}
