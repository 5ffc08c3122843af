package intercept

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"github.com/yourorg/userservice/service/reqinfo"
	"github.com/yourorg/userservice/service/user"
)

// maxPositionWait is the maximum time that a call waits for its minimum position.
const maxPositionWait = 5 * time.Second

// Feed gives access to the head of the log.
type Feed interface {
	// Head returns the end of the log. Later reads see at least this position.
	Head() user.Head
	// WaitFor blocks until the log has reached the position.
	WaitFor(ctx context.Context, position int64) error
}

// Position is an interceptor that sets user.PositionHeader on every response, including errors, and
// waits for the position in user.MinPositionHeader. A handler may overwrite the header, for example
// with the position of its write.
type Position struct {
	serverOnly

	feed  Feed
	first func(context.Context) (int64, error)
	// header is the value of user.PositionHeader at a head of the log, nil before the first call.
	header atomic.Pointer[positionHeader]
}

type positionHeader struct {
	head   user.Head
	values []string // not modified
}

// NewPosition returns an interceptor for positions of the log. first returns the position of
// the oldest row.
func NewPosition(feed Feed, first func(context.Context) (int64, error)) *Position {
	return &Position{feed: feed, first: first}
}

// WrapUnary handles unary calls.
func (p *Position) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		p.stamp(reqinfo.HeaderOfResponse(ctx))
		if err := p.wait(ctx, req.Header()); err != nil {
			return nil, err
		}
		return next(ctx, req)
	}
}

// WrapStreamingHandler handles streams.
func (p *Position) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		p.stamp(conn.ResponseHeader())
		if err := p.wait(ctx, conn.RequestHeader()); err != nil {
			return err
		}
		return next(ctx, conn)
	}
}

func (p *Position) stamp(res http.Header) {
	head, header := p.feed.Head(), p.header.Load()
	if header == nil || header.head != head {
		header = &positionHeader{head, []string{user.FormatPosition(head.Epoch, head.Position)}}
		p.header.Store(header)
	}
	res[user.PositionHeader] = header.values
}

// wait blocks until the log has reached the position that the request asks for.
func (p *Position) wait(ctx context.Context, request http.Header) error {
	want := request.Get(user.MinPositionHeader)
	if want == "" {
		return nil
	}
	epoch, position, ok := user.ParsePosition(want)
	if !ok {
		return user.NewFieldErrorf(strings.ToLower(user.MinPositionHeader), "must be EPOCH:POSITION")
	}
	head := p.feed.Head()
	if epoch != head.Epoch {
		first, err := p.first(ctx)
		if err != nil {
			return err
		}
		return user.NewPositionOutOfRangeError(head.Epoch, first, head.Position, "the position belongs to another log")
	}
	if position <= head.Position {
		return nil
	}
	waiting, cancel := context.WithTimeout(ctx, maxPositionWait)
	defer cancel()
	err := p.feed.WaitFor(waiting, position)
	if errors.Is(err, context.DeadlineExceeded) {
		return user.NewPositionNotReachedError()
	}
	return err
}
