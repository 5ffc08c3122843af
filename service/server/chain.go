package server

import (
	"log/slog"
	"slices"
	"time"

	"buf.build/go/protovalidate"
	"connectrpc.com/connect"

	"github.com/yourorg/userservice/service/auth"
	"github.com/yourorg/userservice/service/feed"
	"github.com/yourorg/userservice/service/intercept"
	"github.com/yourorg/userservice/service/transport"
	"github.com/yourorg/userservice/service/user"
)

// links are what the chains are made of.
type links struct {
	observers

	errors    *intercept.Errors
	log       *slog.Logger
	store     user.Store
	feed      *feed.Feed
	validator protovalidate.Validator
	policy    *auth.Policy
	limits    *limits
	// messages and compressors are shared by RPCs and REST.
	messages    *transport.Messages
	compressors *transport.Compressors
	// longestCall bounds the time of a unary call. Its work is bounded anyway (a page, a
	// thousand items); what takes longer waits for something that does not come.
	longestCall time.Duration
}

// chain is what every call of the service passes, from the outside in. The order
// carries meaning:
func chain(l links) []connect.Interceptor {
	// Spans come first, so that metrics and lines know of which trace they are.
	return append(slices.Clone(l.traces),
		// Metrics and the line have the code that the caller gets and the time that the
		// caller waited.
		l.calls,
		l.observers.log,
		// All that is further in returns domain errors; here they become answers.
		l.errors,
		// Reasons are counted while they are still to be seen.
		l.reasons,
		// A panic becomes such an error. What is further out must not panic.
		intercept.Recover{},
		// Who may not call does not wait, and learns nothing of positions and rules.
		intercept.NewAuthorize(l.policy),
		// The store serves callers in turn.
		intercept.Caller{Peer: transport.Peer},
		// A stream ends when the caller's credentials do.
		intercept.Expiry{},
		// Nobody has too many streams, and none is too large.
		l.limits.streams,
		// The deadline comes before anything that waits.
		intercept.NewDeadline(l.longestCall),
		// A response is reserved when its size is known.
		responses{},
		// The position is taken before the handler reads, so that the answer reflects
		// it; and before the rules are checked, so that a refusal carries it too.
		intercept.NewPosition(l.feed, l.store.First),
		// The rules of the proto come last: what they let pass the handler may trust.
		intercept.NewValidate(l.validator),
		// Further in than everything that looks at messages of a stream.
		fetching{},
	)
}

// plainChain is the chain of the services beside the one proper: health and
// reflection. Balancers and tools ask them all the time, so that what goes well is no
// news.
func plainChain(l links) []connect.Interceptor {
	return []connect.Interceptor{
		intercept.NewLog(l.log, nil),
		l.errors,
		intercept.Recover{},
		drained{l.feed},
		intercept.NewAuthorize(l.policy),
		intercept.Expiry{},
		l.limits.watches,
		fetching{},
	}
}

// handlerOptions are the options of every RPC handler.
func (s *Server) handlerOptions(l links, tooLarge func(limit int64) error, chain []connect.Interceptor) connect.HandlerOption {
	limit := int64(s.cfg.MaxMessageBytes)
	return connect.WithHandlerOptions(
		connect.WithRequestGate(s.gate(l)),
		connect.WithInterceptors(chain...),
		l.messages.Codecs(),
		l.compressors.Gzip(limit, tooLarge),
		// The limit itself is kept below, by readers that say why in the service's
		// own terms. This one would only show if they failed.
		connect.WithReadMaxBytes(int(limit)),
	)
}

func late() error { return intercept.NewBodyTimeoutError() }

// newBodyError returns the error for a request body that its caller got wrong.
func newBodyError(fault transport.BodyError, message string) error {
	switch fault {
	case transport.BodyCompressed:
		return intercept.NewCallerError(connect.CodeInternal, message) // the code that gRPC asks for
	case transport.BodyAborted:
		return intercept.NewCallerError(connect.CodeCanceled, message)
	default:
		return intercept.NewCallerError(connect.CodeInvalidArgument, message)
	}
}
