package intercept

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/yourorg/userservice/service/user"
)

const (
	// PositionHeader carries, in every answer, "EPOCH:POSITION": a position of the
	// log that the answer reflects at least.
	PositionHeader = "Userd-Position"
	// MinPositionHeader carries, in a request, a position that the answer has to
	// reflect.
	MinPositionHeader = "Userd-Min-Position"

	// longestWait is how long a call waits for its position at most.
	longestWait = 5 * time.Second
)

// Feed tells how far the log has come.
type Feed interface {
	// Head is the end of the log. What is read after the call sees it.
	Head() user.Head
	// WaitFor returns once the log has reached the position.
	WaitFor(ctx context.Context, position int64) error
}

// Position gives every answer, of errors too, the header PositionHeader, and lets a
// call wait for the position that it asks for in MinPositionHeader.
//
// A handler that knows better sets the header itself: a write its own position, a
// repeated write that of the first.
type Position struct {
	serverOnly

	feed  Feed
	first func(context.Context) (int64, error)
}

// NewPosition returns an interceptor for positions of the log. first gives the
// position of its oldest row.
func NewPosition(feed Feed, first func(context.Context) (int64, error)) *Position {
	return &Position{feed: feed, first: first}
}

// WrapUnary serves unary calls.
func (p *Position) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		// The header goes through the call's context, not through the response: that
		// way it is there however the call ends.
		if info, ok := connect.CallInfoForHandlerContext(ctx); ok {
			p.stamp(info.ResponseHeader())
		}
		if err := p.wait(ctx, req.Header()); err != nil {
			return nil, err
		}
		return next(ctx, req)
	}
}

// WrapStreamingHandler serves streams.
func (p *Position) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		p.stamp(conn.ResponseHeader())
		if err := p.wait(ctx, conn.RequestHeader()); err != nil {
			return err
		}
		return next(ctx, conn)
	}
}

func (p *Position) stamp(answer http.Header) {
	head := p.feed.Head()
	answer[PositionHeader] = []string{head.Epoch + ":" + strconv.FormatInt(head.Position, 10)}
}

// wait returns once the log has reached what the request asks for.
func (p *Position) wait(ctx context.Context, request http.Header) error {
	want := request.Get(MinPositionHeader)
	if want == "" {
		return nil
	}
	epoch, position, ok := parsePosition(want)
	if !ok {
		return user.NewFieldErrorf(strings.ToLower(MinPositionHeader), "must be EPOCH:POSITION")
	}
	head := p.feed.Head()
	if epoch != head.Epoch {
		first, err := p.first(ctx)
		if err != nil {
			return err
		}
		return user.NewPositionOutOfRangeError(head.Epoch, first, head.Position, "the position is of another log")
	}
	if position <= head.Position {
		return nil
	}
	waiting, cancel := context.WithTimeout(ctx, longestWait)
	defer cancel()
	err := p.feed.WaitFor(waiting, position)
	if errors.Is(err, context.DeadlineExceeded) {
		return user.NewPositionNotReachedError()
	}
	return err
}

func parsePosition(s string) (epoch string, position int64, ok bool) {
	epoch, digits, ok := strings.Cut(s, ":")
	if !ok || epoch == "" {
		return "", 0, false
	}
	position, err := strconv.ParseInt(digits, 10, 64)
	return epoch, position, err == nil && position >= 0
}
