package intercept

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/rpcstatus"
	"github.com/yourorg/userservice/service/throttle"
	"github.com/yourorg/userservice/service/user"
)

// Observer is an interceptor that records each call: its metrics, one log line, and the reason of
// its error. It belongs outside Errors, where the final code is known, and inside tracing, for
// trace ids and exemplars.
//
// Fast successful calls and streams that end at a shutdown are sampled; a line has the number of
// skipped calls, and the other calls are logged at debug level. Errors caused by callers are
// limited to failureBurst per second for each procedure and code. All other calls are always
// logged.
type Observer struct {
	serverOnly

	log      *slog.Logger
	sampler  *throttle.Throttle // nil: log successful calls at debug level only
	failures *throttle.Throttle
	methods  map[string]*methodMetrics          // by procedure; immutable
	reasons  map[user.Reason]prometheus.Counter // immutable

	countRequest func(r *http.Request, status int, header http.Header, called bool)
	procedures   map[string]bool
}

// ObserverOptions configure an Observer.
type ObserverOptions struct {
	Logger   *slog.Logger
	Registry prometheus.Registerer
	// Interval is the interval in which one successful call of each procedure is logged.
	Interval time.Duration
	// CountRequest counts an HTTP request; called is false if it should have become a call and did not.
	// Required for RequestDone.
	CountRequest func(r *http.Request, status int, header http.Header, called bool)
	// Procedures has the paths of all procedures.
	Procedures map[string]bool
}

// NewObserver returns an observer of calls, and of requests if it is passed to RequestDone. It registers the metrics of calls, see newMethodMetrics, and userd_errors_total by reason.
//
// Counters start at zero for all methods and reasons. Calls of unknown procedures are logged
// only, so a caller cannot create series.
func NewObserver(opts ObserverOptions) (*Observer, error) {
	o := NewPlainObserver(opts.Logger)
	o.sampler, o.reasons = throttle.New(opts.Interval, 1), make(map[user.Reason]prometheus.Counter)
	o.countRequest, o.procedures = opts.CountRequest, opts.Procedures
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "userd_errors_total", Help: "Total number of failed calls and rejected REST requests, by ErrorReason.",
	}, []string{"reason"})
	var err error
	if o.methods, err = newMethodMetrics(opts.Registry); err != nil {
		return nil, errors.Join(err, opts.Registry.Register(vec))
	}
	for number, name := range userv1.ErrorReason_name {
		if number != int32(userv1.ErrorReason_ERROR_REASON_UNSPECIFIED) {
			o.reasons[user.Reason(name)] = vec.WithLabelValues(name)
		}
	}
	return o, opts.Registry.Register(vec)
}

// NewPlainObserver returns an observer without metrics that logs fast successful calls at debug
// level only, for example health checks.
func NewPlainObserver(log *slog.Logger) *Observer {
	return &Observer{log: log, failures: throttle.New(time.Second, failureBurst)}
}

// Refused counts the reason of a request that was rejected before the interceptors.
func (o *Observer) Refused(reason user.Reason) {
	if counter := o.reasons[reason]; counter != nil {
		counter.Inc()
	}
}

// observed is a call in progress.
type observed struct {
	call    described
	start   time.Time
	metrics *methodMetrics // nil: not counted
	code    connect.Code   // UNKNOWN if the handler panics
	conn    countedConn    // of a stream
}

// described is a request or the conn of a stream.
type described interface {
	Spec() connect.Spec
	Peer() connect.Peer
}

// WrapUnary records unary calls.
func (o *Observer) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		var c observed
		o.begin(ctx, &c, req)
		if c.metrics != nil {
			c.metrics.received.Inc() // decoded before the interceptors run
		}
		// Deferred, so that a panic is counted too.
		defer c.end(ctx)
		res, err := next(ctx, req)
		if err == nil && c.metrics != nil {
			c.metrics.sent.Inc()
		}
		o.end(ctx, &c, req.Any(), req.Header(), err)
		return res, err
	}
}

// WrapStreamingHandler records streams when they end, and counts their messages.
func (o *Observer) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		c := o.beginStream(ctx, conn)
		defer c.end(ctx)
		err := next(ctx, c.stream())
		o.endStream(ctx, c, err)
		return err
	}
}

// beginStream returns a stream in progress, on the heap: a waiting stream should have a small stack.
func (o *Observer) beginStream(ctx context.Context, conn connect.StreamingHandlerConn) *observed {
	c := new(observed)
	o.begin(ctx, c, conn)
	c.conn = countedConn{StreamingHandlerConn: conn, rpc: c.metrics}
	return c
}

func (o *Observer) begin(ctx context.Context, c *observed, call described) {
	markLogged(ctx)
	c.call, c.start, c.code, c.metrics = call, time.Now(), connect.CodeUnknown, o.methods[call.Spec().Procedure]
	c.metrics.start()
}

// stream returns the conn that counts the messages, if they are counted.
func (c *observed) stream() connect.StreamingHandlerConn {
	if c.metrics == nil {
		return c.conn.StreamingHandlerConn
	}
	return &c.conn
}

//go:noinline // for the stack of a waiting stream
func (o *Observer) endStream(ctx context.Context, c *observed, err error) {
	o.end(ctx, c, nil, c.conn.RequestHeader(), err)
}

// end records the end of the call in its metrics.
//
//go:noinline // for the stack of a waiting stream
func (c *observed) end(ctx context.Context) { c.metrics.end(ctx, c.code, time.Since(c.start)) }

// end records the result of the call. message is the request of a unary call.
func (o *Observer) end(ctx context.Context, c *observed, message any, header http.Header, err error) {
	c.code = codeOf(err)
	reason := reasonOf(err)
	o.Refused(reason)
	if level, skipped, ok := o.level(ctx, c, reason); ok {
		o.line(ctx, c, level, skipped, requestID(message, header), reason, err)
	}
}

// codeOf returns the code for logs and metrics, which has a name in codeNames.
func codeOf(err error) connect.Code {
	switch {
	case err == nil, connect.IsNotModifiedError(err): // a 304 response is a success, which connect represents as an error
		return codeOK
	case errors.As(err, new(*connect.Error)):
	case errors.Is(err, context.Canceled):
		return connect.CodeCanceled
	case errors.Is(err, context.DeadlineExceeded):
		return connect.CodeDeadlineExceeded
	}
	if code := recordedCode(err); int(code) < len(codeNames) {
		return code
	}
	return connect.CodeUnknown
}

// reasonOf returns the ErrorReason that is sent to the client, "" if there is none.
func reasonOf(err error) user.Reason {
	if err == nil {
		return ""
	}
	var failure *connect.Error
	if !errors.As(err, &failure) {
		return ""
	}
	for _, detail := range failure.Details() {
		value, err := detail.Value()
		if info, ok := value.(*errdetails.ErrorInfo); err == nil && ok && info.GetDomain() == rpcstatus.Domain {
			return user.Reason(info.GetReason())
		}
	}
	return ""
}
