// Package service implements the RPCs of user.v1.UserService, one file each. Handlers convert
// between messages and the domain, and return domain errors, which an interceptor converts.
//
// The package is independent of HTTP, databases and configuration.
package service

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/budget"
	"github.com/yourorg/userservice/service/feed"
	"github.com/yourorg/userservice/service/reqinfo"
	"github.com/yourorg/userservice/service/user"
	"github.com/yourorg/userservice/service/validate"
)

// Options configure a Service.
type Options struct {
	MaxMessageBytes int           // size limit of a response; 0: 4 MiB
	MaxStreamItems  int           // limit of items in a client stream; 0: 100,000
	Retention       time.Duration // time from deletion to purge; 0: 30 days
	Logger          *slog.Logger  // nil: slog.Default
	// Heartbeat is the interval of progress messages on idle streams; 0: 15 s.
	Heartbeat time.Duration
	// Validator validates the items of batches and streams; nil: one for the proto rules.
	Validator *validate.Validator
}

// Service implements userv1connect.UserServiceHandler. It is safe for concurrent use.
type Service struct {
	store user.Store
	feed  *feed.Feed
	opts  Options
	log   *slog.Logger

	lastStatus atomic.Pointer[sharedStatus]
}

var _ userv1connect.UserServiceHandler = (*Service)(nil)

// New returns a Service over a store and the feed of that store. Unary requests and those of server
// streams must be validated before, and errors converted, as intercept.Validate and intercept.Errors
// do. New fails if the rules of the proto files are invalid.
func New(store user.Store, f *feed.Feed, opts Options) (*Service, error) {
	if opts.MaxMessageBytes == 0 {
		opts.MaxMessageBytes = 4 << 20
	}
	if opts.MaxStreamItems == 0 {
		opts.MaxStreamItems = 100_000
	}
	if opts.Retention == 0 {
		opts.Retention = user.DefaultRetention
	}
	if opts.Heartbeat == 0 {
		opts.Heartbeat = 15 * time.Second
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	if opts.Validator == nil {
		var err error
		if opts.Validator, err = validate.New(userv1.File_user_v1_user_service_proto); err != nil {
			return nil, err
		}
	}
	return &Service{store: store, feed: f, opts: opts, log: opts.Logger}, nil
}

// setPosition sets user.PositionHeader of the response of a unary call.
func (s *Service) setPosition(ctx context.Context, position int64) {
	s.setPositionIn(reqinfo.HeaderOfResponse(ctx), position)
}

// setPositionOf sets user.PositionHeader of the response of a stream.
func (s *Service) setPositionOf(conn connect.StreamingHandlerConn, position int64) {
	s.setPositionIn(conn.ResponseHeader(), position)
}

func (s *Service) setPositionIn(header http.Header, position int64) {
	header.Set(user.PositionHeader, user.FormatPosition(s.feed.Head().Epoch, position))
}

// flusher returns the flush control of a stream, or one that does nothing.
func flusher(ctx context.Context) reqinfo.FlushControl {
	if control := reqinfo.From[reqinfo.FlushControl](ctx); control != nil {
		return control
	}
	return noFlushControl{}
}

type noFlushControl struct{}

// Cork does nothing.
func (noFlushControl) Cork() {}

// Uncork does nothing.
func (noFlushControl) Uncork() {}

// IsCorked returns false.
func (noFlushControl) IsCorked() bool { return false }

// endError adds the position after which the client can resume to the error of a stream that ended because its client has
// stalled, at the shutdown, or with its connection. It returns any other error unchanged.
func (s *Service) endError(ctx context.Context, err error, position int64) error {
	if err == nil {
		return nil
	}
	epoch := s.feed.Head().Epoch
	if cause, ended := user.AsError(context.Cause(ctx)); ended && cause.Reason == user.ServerDraining {
		return cause.WithPosition(epoch, position)
	}
	var stalled interface{ Stalled() bool }
	switch {
	case !errors.As(err, &stalled) || !stalled.Stalled():
		return err
	case s.feed.IsDraining():
		return user.NewDrainingError(epoch, position)
	}
	return user.NewStalledError(epoch, position)
}

const (
	// minResponse is the minimum reservation for a list response.
	minResponse = 128 << 10
	// responseCopies is the number of copies in memory: store result, message, encoded message.
	responseCopies = 3
)

// reserveResponse reserves memory for a response of want bytes before the store is read. It
// returns the size reserved. Under memory pressure the size is smaller, so lists get shorter
// before calls are rejected.
func reserveResponse(ctx context.Context, want int) (int, error) {
	memory := budget.FromContext(ctx)
	for size := want; ; size = max(size/2, minResponse) {
		if memory.Grow(budget.Response, responseCopies*int64(size)) == nil {
			return size, nil
		}
		if size <= minResponse {
			return 0, user.NewOverloadedError()
		}
	}
}

// applyOne applies the change of a unary call.
func (s *Service) applyOne(ctx context.Context, change user.Change) (user.Result, error) {
	return user.ApplyOne(ctx, s.store, reserving(ctx, change))
}

// reserving returns the change of a unary call with a reservation for its result, because the
// request may be much smaller than the user: results of many calls wait for a slot at a time.
func reserving(ctx context.Context, change user.Change) user.Change {
	memory := budget.FromContext(ctx)
	change.Reserve = func(bytes int) error {
		if memory.Grow(budget.Response, int64(bytes)) != nil { // its encoding is reserved later
			return user.NewOverloadedError()
		}
		return nil
	}
	return change
}
