package limits

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/yourorg/userservice/service/auth"
	"github.com/yourorg/userservice/service/budget"
	"github.com/yourorg/userservice/service/intercept"
	"github.com/yourorg/userservice/service/protocol"
	"github.com/yourorg/userservice/service/reqinfo"
	"github.com/yourorg/userservice/service/transport"
	"github.com/yourorg/userservice/service/user"
)

// newBudget returns the memory budget of the process. Changes of its level are logged.
func newBudget(limit int64, log *slog.Logger) *budget.Budget {
	var b *budget.Budget
	b = budget.New(budget.Options{Limit: limit, Changed: func(from, to budget.Level) {
		level := slog.LevelWarn
		if to < from {
			level = slog.LevelInfo
		}
		log.LogAttrs(context.Background(), level, "memory level changed",
			slog.String("level", to.String()), slog.String("previous", from.String()),
			slog.Int64("reserved_bytes", b.Total()), slog.Int64("capacity_bytes", b.Capacity()))
	}})
	return b
}

// ReserveShared reserves memory that the streams of all callers share.
func (l *Limits) ReserveShared(bytes int64) (release func(), ok bool) {
	r := new(budget.Reservation)
	r.Open(l.memory, nil, budget.Shared, "")
	if r.Grow(budget.Subscription, bytes) != nil {
		r.Release()
		return nil, false
	}
	return r.Release, true
}

// Class returns the class of the account of a request before its authentication.
func (l *Limits) Class(r *http.Request) budget.Class {
	class := l.peerClass()
	switch {
	case isHealthCheck(r):
		class = budget.System
	case class == budget.Anonymous && !l.opts.Open(r.URL.Path):
		class = budget.Pending
	}
	return class
}

// peerClass returns the class of an unauthenticated peer.
func (l *Limits) peerClass() budget.Class {
	if !l.opts.Anonymous {
		return budget.Anonymous
	}
	return budget.Known
}

func isHealthCheck(r *http.Request) bool {
	return strings.HasPrefix(r.URL.Path, protocol.HealthPath) && r.URL.Path != protocol.HealthWatchPath
}

// Admit rejects a request for which the memory budget is exhausted, and reports whether the request goes on. It must run before
// anything that reads the body.
func (l *Limits) Admit(w http.ResponseWriter, r *http.Request) bool {
	if x := reqinfo.From[*transport.Exchange](r.Context()); x != nil && x.Overloaded() {
		l.Refuse(w, r, user.NewOverloadedError())
		return false
	}
	return true
}

// Authenticated moves the reservation of the request to the account of its caller, or rejects the
// request if that account is exhausted. It is a hook of the authentication middleware: an additional
// http.Handler would double the stack of each idle stream.
func (l *Limits) Authenticated(w http.ResponseWriter, r *http.Request, caller auth.Caller) bool {
	if x := reqinfo.From[*transport.Exchange](r.Context()); x != nil && x.MoveTo(budget.Known, intercept.SubjectKey(caller.Subject)) != nil {
		l.Refuse(w, r, user.NewOverloadedError())
		return false
	}
	return true
}

// Overloaded returns the error for a message that exceeds the memory budget.
func (l *Limits) Overloaded(r *http.Request) error {
	overloaded := user.NewOverloadedError()
	l.opts.Rejected(string(overloaded.Reason))
	if !l.opts.IsStream(r) { // interceptors log streams; other requests do not reach them
		intercept.LogOf(r.Context()).Rejected = overloaded
	}
	converted, _ := intercept.ToConnect(overloaded)
	return converted
}

// registerBudget registers the metrics of the memory budget.
func registerBudget(b *budget.Budget, registry prometheus.Registerer) error {
	gauge := func(name, help string, labels prometheus.Labels, value func() float64) error {
		return registry.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, value))
	}
	errs := []error{
		gauge("userd_memory_capacity_bytes", "Memory budget in bytes; 0 if unlimited.", nil,
			func() float64 { return float64(b.Capacity()) }),
		gauge("userd_memory_level", "Memory level: 0 normal, 1 no new streams and large requests, 2 no new requests, 3 no new connections.", nil,
			func() float64 { b.Observe(); return float64(b.Level()) }),
		gauge("userd_memory_heap_ratio", "Ratio of heap and stacks in use to reserved memory; 0 if nothing is reserved.", nil, func() float64 {
			if total := b.Total(); total > 0 {
				return float64(budget.HeapInUse()) / float64(total)
			}
			return 0
		}),
	}
	for _, kind := range budget.Kinds() {
		errs = append(errs, gauge("userd_memory_reserved_bytes", "Reserved memory in bytes, by kind.",
			prometheus.Labels{"kind": kind.String()}, func() float64 { return float64(b.Reserved(kind)) }))
	}
	for _, scope := range budget.Scopes() {
		errs = append(errs, registry.Register(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "userd_memory_reservations_rejected_total", Help: "Total number of rejected memory reservations, by scope of the limit.",
			ConstLabels: prometheus.Labels{"scope": string(scope)},
		}, func() float64 { return float64(b.Rejected(scope)) })))
	}
	return errors.Join(errs...)
}
