// Package service implements the RPCs of user.v1.UserService, one file each. Handlers convert
// between messages and the domain, and return domain errors, which an interceptor converts.
//
// The package is independent of HTTP, databases and configuration.
package service

import (
	"context"
	"log/slog"
	"time"

	"connectrpc.com/connect"

	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/feed"
	"github.com/yourorg/userservice/service/user"
)

// PositionHeader is the response header "EPOCH:POSITION", a log position that the response
// reflects at least.
const PositionHeader = "Userd-Position"

// Options configure a Service.
type Options struct {
	MaxMessageBytes int           // size limit of a response; 0: 4 MiB
	MaxStreamItems  int           // limit of items in a client stream; 0: 100,000
	Retention       time.Duration // time from deletion to purge; 0: 30 days
	Logger          *slog.Logger  // nil: slog.Default
	// Heartbeat is the interval of progress messages on idle streams; 0: 15 s.
	Heartbeat time.Duration
	// Validate validates one item by the proto rules. Its errors are of type *user.Error.
	Validate func(item any) error
}

// Service implements userv1connect.UserServiceHandler. It is safe for concurrent use.
type Service struct {
	store user.Store
	feed  *feed.Feed
	opts  Options
	log   *slog.Logger
}

var _ userv1connect.UserServiceHandler = (*Service)(nil)

// New returns a Service over a store and the feed of that store.
func New(store user.Store, f *feed.Feed, opts Options) *Service {
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
	return &Service{store: store, feed: f, opts: opts, log: opts.Logger}
}

// setPosition sets PositionHeader of the response.
func (s *Service) setPosition(ctx context.Context, position int64) {
	if info, ok := connect.CallInfoForHandlerContext(ctx); ok {
		info.ResponseHeader().Set(PositionHeader, user.FormatPosition(s.feed.Head().Epoch, position))
	}
}
