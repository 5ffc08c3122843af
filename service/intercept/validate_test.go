package intercept_test

import (
	"context"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/intercept"
	"github.com/yourorg/userservice/service/user"
)

// Validate checks the request of a server stream, not the items of other streams.
func TestStreamValidation(t *testing.T) {
	for kind, refused := range map[connect.StreamType]bool{
		connect.StreamTypeServer: true, connect.StreamTypeClient: false, connect.StreamTypeBidi: false,
	} {
		c := newConn(kind, func(any) error { return nil })
		err := intercept.NewValidate(rejecting{}).WrapStreamingHandler(
			func(_ context.Context, conn connect.StreamingHandlerConn) error {
				return conn.Receive(&userv1.GetUserRequest{})
			})(t.Context(), c)
		if user.HasReason(err, user.InvalidField) != refused {
			t.Errorf("%v: error = %v", kind, err)
		}
	}
}

type rejecting struct{}

func (rejecting) Validate(proto.Message) error { return user.NewFieldErrorf("user_id", "must be set") }

type panicking struct{}

func (panicking) Validate(proto.Message) error { panic("planted") }

// Stream validation runs on another goroutine, where an unrecovered panic would end the
// process.
func TestValidatorPanicIsAnError(t *testing.T) {
	c := newConn(connect.StreamTypeServer, func(any) error { return nil })
	err := intercept.NewValidate(panicking{}).WrapStreamingHandler(
		func(_ context.Context, conn connect.StreamingHandlerConn) error {
			return conn.Receive(&userv1.GetUserRequest{})
		})(t.Context(), c)
	if err == nil || !strings.Contains(err.Error(), "planted") {
		t.Errorf("error = %v", err)
	}
	if res, expected := intercept.ToConnect(err); expected || strings.Contains(res.Error(), "planted") {
		t.Errorf("error for the caller = %v", res)
	}
}
