// Package service is the handler set: every RPC of user.v1.UserService, one file
// each. A handler converts, asks the domain and the store, and converts back; it
// returns domain errors, which one interceptor turns into answers.
//
// The package knows nothing of HTTP, of databases or of configuration.
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

// PositionHeader carries "EPOCH:POSITION": in an answer a position that it
// reflects at least.
const PositionHeader = "Userd-Position"

// Options are what an operator may set.
type Options struct {
	MaxMessageBytes int           // of an answer; 0: 4 MiB
	MaxStreamItems  int           // items a client stream may carry; 0: 100,000
	Retention       time.Duration // how long a deleted user is kept; 0: 30 days
	Logger          *slog.Logger  // nil: slog.Default
	// Heartbeat is how often an idle stream that asked for progress is told; 0: 15 s.
	Heartbeat time.Duration
	// Validate checks one item of a client or bidi stream by the rules of the
	// proto; its error is an *user.Error.
	Validate func(item any) error
}

// Service implements userv1connect.UserServiceHandler. It is safe for use by many
// goroutines.
type Service struct {
	store user.Store
	feed  *feed.Feed
	opts  Options
	log   *slog.Logger
}

var _ userv1connect.UserServiceHandler = (*Service)(nil)

// New returns the handler set over a store and the feed of that store's log.
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

// answerReflects notes in the answer's header that it reflects the position.
func (s *Service) answerReflects(ctx context.Context, position int64) {
	if info, ok := connect.CallInfoForHandlerContext(ctx); ok {
		info.ResponseHeader().Set(PositionHeader, user.FormatPosition(s.feed.Head().Epoch, position))
	}
}
