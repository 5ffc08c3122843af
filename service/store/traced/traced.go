// Package traced wraps a user.Store with OpenTelemetry client spans.
//
// An operation is traced only if the span in its context is recording, so maintenance and
// probes do not start traces. A span has the number of rows and the type of the error,
// but no user data and no error text.
package traced

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/yourorg/userservice/service/user"
)

// Store is a traced user.Store. Maintenance operations and those that read memory only
// are not traced.
type Store struct {
	user.Store

	tracer trace.Tracer
	system string
}

// New wraps store. system is the value of db.system.name, such as sqlite.
func New(store user.Store, provider trace.TracerProvider, system string) *Store {
	return &Store{Store: store, tracer: provider.Tracer("github.com/yourorg/userservice/service/store/traced"), system: system}
}

// Unwrap returns the wrapped store.
func (s *Store) Unwrap() user.Store { return s.Store }

// start returns a nil span if the span in ctx is not recording.
func (s *Store) start(ctx context.Context, operation string) (context.Context, trace.Span) {
	if !trace.SpanFromContext(ctx).IsRecording() {
		return ctx, nil
	}
	//nolint:spancheck // finish ends it
	return s.tracer.Start(ctx, "store."+operation, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
		attribute.String("db.system.name", s.system),
		attribute.String("db.operation.name", operation),
	))
}

// finish ends a span, which may be nil. A user.Error and a cancellation do not set the
// status of the span to error.
func finish(span trace.Span, err error, attributes ...attribute.KeyValue) {
	if span == nil {
		return
	}
	if err != nil {
		attributes = append(attributes, attribute.String("error.type", errorType(err)))
		if _, expected := user.AsError(err); !expected && !errors.Is(err, context.Canceled) {
			// No description: the text of an unexpected error may contain user data.
			span.SetStatus(codes.Error, "")
		}
	}
	span.SetAttributes(attributes...)
	span.End()
}

func errorType(err error) string {
	if e, ok := user.AsError(err); ok {
		return string(e.Reason)
	}
	switch {
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, context.DeadlineExceeded):
		return "deadline_exceeded"
	}
	return "unexpected"
}

func returnedRows(n int) attribute.KeyValue { return attribute.Int("db.response.returned_rows", n) }

// Get implements user.Store.
func (s *Store) Get(ctx context.Context, id int64) (*user.User, error) {
	ctx, span := s.start(ctx, "Get")
	u, err := s.Store.Get(ctx, id)
	finish(span, err)
	return u, err
}

// GetMany implements user.Store.
func (s *Store) GetMany(ctx context.Context, ids []int64) ([]*user.User, error) {
	ctx, span := s.start(ctx, "GetMany")
	users, err := s.Store.GetMany(ctx, ids)
	if span != nil {
		finish(span, err, attribute.Int("db.operation.batch.size", len(ids)), returnedRows(len(users)))
	}
	return users, err
}

// Statuses implements user.Store.
func (s *Store) Statuses(ctx context.Context, ids []int64) ([]user.CurrentStatus, error) {
	ctx, span := s.start(ctx, "Statuses")
	statuses, err := s.Store.Statuses(ctx, ids)
	if span != nil {
		finish(span, err, attribute.Int("db.operation.batch.size", len(ids)), returnedRows(len(statuses)))
	}
	return statuses, err
}

// List implements user.Store.
func (s *Store) List(ctx context.Context, query user.ListQuery) (user.ListPage, error) {
	ctx, span := s.start(ctx, "List")
	page, err := s.Store.List(ctx, query)
	if span != nil {
		finish(span, err, returnedRows(len(page.Users)))
	}
	return page, err
}

// Count implements user.Store.
func (s *Store) Count(ctx context.Context, query user.ListQuery) (user.Count, error) {
	ctx, span := s.start(ctx, "Count")
	count, err := s.Store.Count(ctx, query)
	finish(span, err)
	return count, err
}

// Log implements user.Store.
func (s *Store) Log(ctx context.Context, query user.LogQuery) (user.LogPage, error) {
	ctx, span := s.start(ctx, "Log")
	page, err := s.Store.Log(ctx, query)
	if span != nil {
		finish(span, err, returnedRows(len(page.Rows)))
	}
	return page, err
}

// Before implements user.Store.
func (s *Store) Before(ctx context.Context, t time.Time) (int64, error) {
	ctx, span := s.start(ctx, "Before")
	position, err := s.Store.Before(ctx, t)
	finish(span, err)
	return position, err
}

// Submit implements user.Store. Its span ends when the batch is complete, so it includes
// the wait for the group commit and the sync.
func (s *Store) Submit(ctx context.Context, batch user.Batch) *user.Pending {
	ctx, span := s.start(ctx, "Submit")
	pending := s.Store.Submit(ctx, batch)
	if span == nil {
		return pending
	}
	// The goroutine ends, because the store completes every batch.
	go func() {
		<-pending.Done()
		results, err := pending.Wait(context.WithoutCancel(ctx))
		failed := 0
		for i := range results {
			if results[i].Err != nil {
				failed++
			}
			if len(results) == 1 {
				err = errors.Join(err, results[i].Err)
			}
		}
		finish(span, err,
			attribute.Int("db.operation.batch.size", len(batch.Changes)),
			attribute.Int("userd.store.failed_changes", failed))
	}()
	return pending
}
