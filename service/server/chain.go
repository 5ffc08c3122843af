package server

import (
	"log/slog"
	"time"

	"buf.build/go/protovalidate"
	"connectrpc.com/connect"

	"github.com/yourorg/userservice/service/auth"
	"github.com/yourorg/userservice/service/feed"
	"github.com/yourorg/userservice/service/intercept"
	"github.com/yourorg/userservice/service/transport"
	"github.com/yourorg/userservice/service/user"
)

// longestCall bounds the time of a unary call. Its work is bounded anyway (a page, a
// thousand items); what takes longer waits for something that does not come.
const longestCall = time.Minute

// chain is what every call of the service passes, from the outside in. The order
// carries meaning:
func chain(log *slog.Logger, store user.Store, f *feed.Feed, validator protovalidate.Validator, policy *auth.Policy) []connect.Interceptor {
	return []connect.Interceptor{
		// The line comes first, so that it has the code that the caller gets and the
		// time that the caller waited.
		intercept.NewLog(log),
		// All that is further in returns domain errors; here they become answers.
		intercept.NewErrors(log),
		// A panic becomes such an error. What is further out must not panic.
		intercept.Recover{},
		// Who may not call does not wait, and learns nothing of positions and rules.
		intercept.NewAuthorize(policy),
		// A stream ends when the caller's credentials do.
		intercept.Expiry{},
		// The deadline comes before anything that waits.
		intercept.NewDeadline(longestCall),
		// The position is taken before the handler reads, so that the answer reflects
		// it; and before the rules are checked, so that a refusal carries it too.
		intercept.NewPosition(f, store.First),
		// The rules of the proto come last: what they let pass the handler may trust.
		intercept.NewValidate(validator),
	}
}

// plainChain is the chain of the services beside the one proper: health and
// reflection.
func plainChain(log *slog.Logger, policy *auth.Policy) []connect.Interceptor {
	return []connect.Interceptor{
		intercept.NewLog(log),
		intercept.NewErrors(log),
		intercept.Recover{},
		intercept.NewAuthorize(policy),
		intercept.Expiry{},
	}
}

// handlerOptions are the options of every RPC handler.
func handlerOptions(maxMessageBytes int64, chain []connect.Interceptor) connect.HandlerOption {
	return connect.WithHandlerOptions(
		connect.WithInterceptors(chain...),
		transport.JSON(),
		transport.Gzip(maxMessageBytes, tooLarge),
		// The limit itself is kept below, by readers that say why in the service's
		// own terms. This one would only show if they failed.
		connect.WithReadMaxBytes(int(maxMessageBytes)),
	)
}

func tooLarge(limit int64) error { return intercept.TooLarge(limit) }
