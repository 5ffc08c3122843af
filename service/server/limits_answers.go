package server

import (
	"context"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/semaphore"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/user"
)

const (
	// answerShare is the part of the memory limit, one in so many, that large answers
	// may take at a time.
	answerShare = 4
	// answerCopies is how many times an answer is in memory: as a message, as bytes, and
	// in a buffer that doubles as it grows.
	answerCopies = 3
	// answerWait is how long a call waits for others' answers to be taken.
	answerWait = 5 * time.Second
)

// answers keeps room for the answers that may be large, those with lists of messages. A
// small request can ask for a large answer, and a caller who then takes nothing of it
// keeps it in memory. So a call waits for room before it makes the largest answer that
// there may be, and keeps what the answer takes until it has been written.
//
// It is an interceptor for unary calls; enter and leave belong around all that writes.
type answers struct {
	room    *semaphore.Weighted // nil: no limit
	largest int64
	large   map[string]bool // by procedure
}

// newAnswers returns the room within a memory limit, 0 for none.
func newAnswers(memory, maxMessageBytes int64) *answers {
	a := &answers{large: make(map[string]bool)}
	if memory > 0 {
		a.room = semaphore.NewWeighted(memory / answerShare)
		a.largest = min(answerCopies*maxMessageBytes, memory/answerShare)
	}
	methods := userv1.File_user_v1_user_service_proto.Services().ByName("UserService").Methods()
	for i := range methods.Len() {
		a.large[procedure(methods.Get(i))] = hasListOfMessages(methods.Get(i).Output())
	}
	return a
}

func hasListOfMessages(message protoreflect.MessageDescriptor) bool {
	for i := range message.Fields().Len() {
		if field := message.Fields().Get(i); field.IsList() && field.Message() != nil {
			return true
		}
	}
	return false
}

// place is what a request has of the room.
type place struct{ taken int64 }

type placeKey struct{}

// enter returns the context of a request that may take room.
func (a *answers) enter(ctx context.Context) context.Context {
	if a.room == nil {
		return ctx
	}
	return context.WithValue(ctx, placeKey{}, new(place))
}

// leave gives back what the request has.
func (a *answers) leave(ctx context.Context) {
	if p, ok := ctx.Value(placeKey{}).(*place); ok && p.taken > 0 {
		a.room.Release(p.taken)
	}
}

// WrapUnary lets calls with large answers wait for room.
func (a *answers) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		p, ok := ctx.Value(placeKey{}).(*place)
		if !ok || !a.large[req.Spec().Procedure] {
			return next(ctx, req)
		}
		if err := a.take(ctx, p); err != nil {
			return nil, err
		}
		res, err := next(ctx, req)
		a.keep(p, res, err)
		return res, err
	}
}

func (a *answers) take(ctx context.Context, p *place) error {
	waiting, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	if a.room.Acquire(waiting, a.largest) != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return user.ErrOverloaded()
	}
	p.taken = a.largest
	return nil
}

// keep gives back what the answer does not take.
func (a *answers) keep(p *place, res connect.AnyResponse, err error) {
	var kept int64
	if err == nil {
		if message, ok := res.Any().(proto.Message); ok {
			kept = min(answerCopies*int64(proto.Size(message)), a.largest)
		}
	}
	a.room.Release(p.taken - kept)
	p.taken = kept
}

// WrapStreamingClient returns next as it is.
func (*answers) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler returns next as it is: a stream sends page by page.
func (*answers) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}
