package rpc

import (
	"context"
	"net/http"
	"path"
	"slices"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/emptypb"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
)

// A Method is an RPC with its interceptors.
type Method struct {
	spec       connect.Spec
	input      protoreflect.MessageDescriptor
	newRequest func() proto.Message
	call       connect.UnaryFunc            // of a unary RPC
	serve      connect.StreamingHandlerFunc // of a server stream
}

// Methods are RPCs of a service by procedure.
type Methods map[string]*Method

// UserService returns the unary RPCs of user.v1.UserService. The first interceptor is the outermost.
func UserService(s userv1connect.UserServiceHandler, interceptors ...connect.Interceptor) Methods {
	methods := make(Methods)
	for _, m := range []*Method{
		newMethod("GetUser", s.GetUser),
		newMethod("BatchGetUsers", s.BatchGetUsers),
		newMethod("ListUsers", s.ListUsers),
		newMethod("CreateUser", s.CreateUser),
		newMethod("UpdateUser", s.UpdateUser),
		newMethod("DeleteUser", s.DeleteUser),
		newMethod("UndeleteUser", s.UndeleteUser),
		newMethod("PurgeUser", s.PurgeUser),
		newMethod("CreateUsers", s.CreateUsers),
		newMethod("UpdateUsers", s.UpdateUsers),
		newMethod("ListUserActivities", s.ListUserActivities),
		newMethod("RecordUserActivity", s.RecordUserActivity),
		newMethod("UpdateUserStatus", s.UpdateUserStatus),
	} {
		for _, interceptor := range slices.Backward(interceptors) {
			m.call = interceptor.WrapUnary(m.call)
		}
		methods[m.spec.Procedure] = m
	}
	return methods
}

// message is a pointer to a generated message.
type message[T any] interface {
	*T
	proto.Message
}

// describe returns the method of a name, without its function.
func describe[Req any, Message message[Req]](name protoreflect.Name, kind connect.StreamType) *Method {
	schema := userv1.File_user_v1_user_service_proto.Services().ByName("UserService").Methods().ByName(name)
	return &Method{
		spec: connect.Spec{
			StreamType: kind, Schema: schema, Procedure: path.Join("/", string(schema.Parent().FullName()), string(name)),
		},
		input:      schema.Input(),
		newRequest: func() proto.Message { return Message(new(Req)) },
	}
}

func newMethod[Req, Res any, Message message[Req]](name protoreflect.Name, rpc func(context.Context, *Req) (*Res, error)) *Method {
	m := describe[Req, Message](name, connect.StreamTypeUnary)
	m.call = func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		message, _ := req.Any().(*Req)
		res, err := rpc(ctx, message)
		if err != nil {
			return nil, err
		}
		return connect.NewResponse(res), nil
	}
	return m
}

func newStream[Req any, Message message[Req]](
	name protoreflect.Name, rpc func(context.Context, *Req, connect.StreamingHandlerConn) error,
) *Method {
	m := describe[Req, Message](name, connect.StreamTypeServer)
	m.serve = func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		message := new(Req)
		if err := conn.Receive(message); err != nil {
			return err
		}
		return rpc(ctx, message, conn)
	}
	return m
}

// Call calls the RPC with its interceptors. r is the HTTP request of the call, and message a message of the type of the RPC.
func (m *Method) Call(ctx context.Context, r *http.Request, protocol string, message proto.Message) (proto.Message, error) {
	res, err := m.call(ctx, &request{Request: anyRequest, message: message, method: m, http: r, protocol: protocol})
	if err != nil {
		return nil, err
	}
	response, _ := res.Any().(proto.Message)
	return response, nil
}

// anyRequest provides the unexported methods of connect.AnyRequest.
var anyRequest = connect.NewRequest(&emptypb.Empty{})

// request is the connect.AnyRequest of the interceptors.
type request struct {
	*connect.Request[emptypb.Empty]

	message  proto.Message
	method   *Method
	http     *http.Request
	protocol string
}

// Any returns the message.
func (r *request) Any() any { return r.message }

// Spec returns the RPC.
func (r *request) Spec() connect.Spec { return r.method.spec }

// Peer returns the client.
func (r *request) Peer() connect.Peer {
	return connect.Peer{Addr: r.http.RemoteAddr, Protocol: r.protocol}
}

// Header returns the header of the HTTP request.
func (r *request) Header() http.Header { return r.http.Header }

// HTTPMethod returns the method of the HTTP request.
func (r *request) HTTPMethod() string { return r.http.Method }
