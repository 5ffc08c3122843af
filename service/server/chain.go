package server

import (
	"context"
	"log/slog"
	"time"

	"connectrpc.com/connect"

	"github.com/yourorg/userservice/service/auth"
	"github.com/yourorg/userservice/service/codec"
	"github.com/yourorg/userservice/service/feed"
	"github.com/yourorg/userservice/service/intercept"
	"github.com/yourorg/userservice/service/limits"
	"github.com/yourorg/userservice/service/rest"
	"github.com/yourorg/userservice/service/transport"
	"github.com/yourorg/userservice/service/user"
	"github.com/yourorg/userservice/service/validate"
)

// links are the dependencies of the interceptor chains.
type links struct {
	observers

	errors    *intercept.Errors
	log       *slog.Logger
	store     user.Store
	feed      *feed.Feed
	validator *validate.Validator
	policy    *auth.Policy
	limits    *limits.Limits
	// messages and compressors are shared by RPCs and REST.
	messages    *codec.Messages
	compressors *codec.Compressors
	// maxCallDuration bounds the duration of a unary call.
	maxCallDuration time.Duration
}

// chain returns the interceptors of every call of the service, outermost first. The order matters:
func chain(l links) []connect.Interceptor {
	// The streams of REST pass their messages to the interceptors and handlers without encoding them.
	outer := []connect.Interceptor{rest.Interceptor{}}
	// Spans come next, so that metrics and log lines have the trace id.
	return append(append(outer, l.traces...),
		// Metrics and the log line have the code, the reason and the duration that the client observes.
		l.calls,
		// Inner interceptors and handlers return domain errors, or panic. Both are converted to statuses here. The outer
		// interceptors must not panic.
		l.errors,
		// Authorization precedes everything that waits or that reveals positions and rules.
		intercept.NewAuthorize(l.policy),
		// A stream ends when the credentials of its caller expire.
		intercept.Expiry{},
		// Limits of the number and the size of streams.
		l.limits.Streams(),
		// The deadline covers everything that waits.
		intercept.NewDeadline(l.maxCallDuration),
		// Memory of the response is reserved when its size is known.
		intercept.Responses{},
		// The position is read before the handler runs, so that the response reflects it, and
		// before validation, so that a rejection has it too.
		intercept.NewPosition(l.feed, l.store.First),
		// Handlers rely on validated requests.
		intercept.NewValidate(l.validator),
		// Innermost: all interceptors that inspect the messages of a stream are outside.
		intercept.Turns{},
	)
}

// plainChain returns the interceptors of health and reflection. Their successful calls are frequent
// and are not logged.
func plainChain(l links) []connect.Interceptor {
	return []connect.Interceptor{
		intercept.NewPlainObserver(l.log), l.errors,
		intercept.Drained{Feed: l.feed},
		intercept.NewAuthorize(l.policy),
		intercept.Expiry{},
		l.limits.Watches(),
		intercept.Turns{ReserveBidi: true},
	}
}

// handlerOptions are the options of every RPC handler.
func (s *Server) handlerOptions(l links, tooLarge func(limit int64) error, chain []connect.Interceptor) connect.HandlerOption {
	limit := int64(s.cfg.MaxMessageBytes)
	return connect.WithHandlerOptions(
		connect.WithRequestGate(l.messages.Gate(l.authorize, s.limits.MaxMessageBytes)),
		connect.WithInterceptors(chain...),
		l.messages.Codecs(),
		l.compressors.Gzip(limit, tooLarge),
		// codec.Incoming enforces the limit with the errors of this service. This is a
		// second line of defense.
		connect.WithReadMaxBytes(int(limit)),
	)
}

// authorize rejects a call whose caller the policy does not allow, before its message is read.
func (l *links) authorize(ctx context.Context, procedure string) *connect.Error {
	err := l.policy.Authorize(ctx, procedure)
	if err == nil {
		return nil
	}
	if refused, ok := user.AsError(err); ok {
		intercept.LogOf(ctx).Rejected = refused
		l.calls.Refused(refused.Reason)
	}
	converted, _ := intercept.ToConnect(err)
	return converted
}

func newBodyTimeoutError() error { return intercept.NewBodyTimeoutError() }

// newBodyError returns the error for an invalid request body.
func newBodyError(fault transport.BodyError, message string) error {
	switch fault {
	case transport.BodyCompressed:
		return intercept.NewCallerError(connect.CodeInternal, message) // the code that gRPC specifies
	case transport.BodyAborted:
		return intercept.NewCallerError(connect.CodeCanceled, message)
	default:
		return intercept.NewCallerError(connect.CodeInvalidArgument, message)
	}
}
