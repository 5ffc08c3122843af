package intercept

import (
	"context"
	"errors"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/yourorg/userservice/service/user"
)

var reasons = []user.Reason{
	user.InvalidField, user.UserNotFound, user.UsernameTaken, user.EmailTaken, user.UserDeleted, user.UserNotDeleted,
	user.EtagMismatch, user.RequestIDReused, user.PositionOutOfRange, user.PositionNotReached,
	user.CredentialsMissing, user.CredentialsInvalid, user.CredentialsExpired, user.PermissionMissing,
	user.MessageTooLarge, user.TooManyItems, user.TooManyStreams, user.TooManyFollows, user.RateLimited,
	user.ServerDraining, user.StoreUnavailable, user.Overloaded, user.StoreFull, user.StoreReadOnly, user.InternalError,
	user.HostNotAllowed, user.OriginNotAllowed, user.StreamStalled,
}

// Reasons is an interceptor that counts the errors of calls by ErrorReason. It belongs just
// inside Errors, where errors are still domain errors.
//
// Canceled calls, timeouts and protocol errors have no reason and are not counted, nor are
// failed items of streams.
type Reasons struct {
	serverOnly

	counts map[user.Reason]prometheus.Counter // immutable
}

// NewReasons returns an interceptor and registers userd_errors_total by reason. Unexpected
// errors are counted as INTERNAL.
func NewReasons(registry prometheus.Registerer) (*Reasons, error) {
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "userd_errors_total", Help: "Total number of failed calls and rejected REST requests, by ErrorReason.",
	}, []string{"reason"})
	if err := registry.Register(vec); err != nil {
		return nil, err
	}
	r := &Reasons{counts: make(map[user.Reason]prometheus.Counter)}
	for _, reason := range reasons {
		r.counts[reason] = vec.WithLabelValues(string(reason))
	}
	return r, nil
}

// WrapUnary counts the errors of unary calls.
func (r *Reasons) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		res, err := next(ctx, req)
		if err != nil {
			r.count(err)
		}
		return res, err
	}
}

// WrapStreamingHandler counts the errors of streams.
func (r *Reasons) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		err := next(ctx, conn)
		if err != nil {
			r.count(err)
		}
		return err
	}
}

// Refused counts the reason of a request that was rejected before the interceptors.
func (r *Reasons) Refused(reason user.Reason) {
	if counter := r.counts[reason]; counter != nil {
		counter.Inc()
	}
}

func (r *Reasons) count(err error) {
	reason := user.InternalError
	if expected, ok := user.AsError(err); ok {
		reason = expected.Reason
	} else if errors.As(err, new(*connect.Error)) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return
	}
	r.Refused(reason)
}
