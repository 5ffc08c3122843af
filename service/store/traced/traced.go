// Package traced shows the work of a store as spans within the span of the call that
// asks for it.
//
// It promises to change nothing of what the store does, and to make a span only where
// somebody records: without a recorded span in the context a call goes straight
// through, so that housekeeping and probes make no traces of their own. A stream, whose
// own span ended with its beginning, is told how much was done, to say so where it
// shows what it does. Spans say how much was read or changed and why it failed, never
// whom it was about.
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

// Store is a user.Store that makes spans of what callers wait for. The calls of
// housekeeping, and those that only look into memory, it leaves to the store within.
type Store struct {
	user.Store

	tracer trace.Tracer
	system string
}

// New returns the store with spans from the provider. system names the kind of
// database, such as sqlite.
func New(store user.Store, provider trace.TracerProvider, system string) *Store {
	return &Store{Store: store, tracer: provider.Tracer("github.com/yourorg/userservice/service/store/traced"), system: system}
}

// Unwrap gives the store within.
func (s *Store) Unwrap() user.Store { return s.Store }

// begin returns a nil span where nobody records.
func (s *Store) begin(ctx context.Context, operation string) (context.Context, trace.Span) {
	if !trace.SpanFromContext(ctx).IsRecording() {
		return ctx, nil
	}
	//nolint:spancheck // finish ends it
	return s.tracer.Start(ctx, "store."+operation, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
		attribute.String("db.system.name", s.system),
		attribute.String("db.operation.name", operation),
	))
}

// tell tells the stream that asks, if one does and has no span that records, how many
// rows were read or written for it.
func tell(ctx context.Context, span trace.Span, rows int) {
	if span != nil {
		return
	}
	if stream, ok := trace.SpanFromContext(ctx).(interface{ StoreDid(rows int) }); ok {
		stream.StoreDid(rows)
	}
}

// finish ends a span, which may be nil. What the domain expects to fail is an answer,
// not a fault of the store, and neither is a caller who goes away.
func finish(span trace.Span, err error, about ...attribute.KeyValue) {
	if span == nil {
		return
	}
	if err != nil {
		about = append(about, attribute.String("error.type", kindOf(err)))
		if _, expected := user.AsError(err); !expected && !errors.Is(err, context.Canceled) {
			// The text stays in the log: it may hold what no trace should.
			span.SetStatus(codes.Error, "")
		}
	}
	span.SetAttributes(about...)
	span.End()
}

func kindOf(err error) string {
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

func rows(n int) attribute.KeyValue { return attribute.Int("db.response.returned_rows", n) }

// First returns the position of the oldest row kept.
func (s *Store) First(ctx context.Context) (int64, error) {
	ctx, span := s.begin(ctx, "First")
	position, err := s.Store.First(ctx)
	finish(span, err)
	return position, err
}

// Get returns a user.
func (s *Store) Get(ctx context.Context, id int64) (*user.User, error) {
	ctx, span := s.begin(ctx, "Get")
	u, err := s.Store.Get(ctx, id)
	tell(ctx, span, 1)
	finish(span, err)
	return u, err
}

// GetMany returns the users that there are.
func (s *Store) GetMany(ctx context.Context, ids []int64) ([]*user.User, error) {
	ctx, span := s.begin(ctx, "GetMany")
	users, err := s.Store.GetMany(ctx, ids)
	tell(ctx, span, len(users))
	if span != nil {
		finish(span, err, attribute.Int("db.operation.batch.size", len(ids)), rows(len(users)))
	}
	return users, err
}

// Statuses returns the current statuses of the users that exist.
func (s *Store) Statuses(ctx context.Context, ids []int64) ([]user.CurrentStatus, error) {
	ctx, span := s.begin(ctx, "Statuses")
	statuses, err := s.Store.Statuses(ctx, ids)
	tell(ctx, span, len(statuses))
	if span != nil {
		finish(span, err, attribute.Int("db.operation.batch.size", len(ids)), rows(len(statuses)))
	}
	return statuses, err
}

// List returns a page of users.
func (s *Store) List(ctx context.Context, query user.ListQuery) (user.ListPage, error) {
	ctx, span := s.begin(ctx, "List")
	page, err := s.Store.List(ctx, query)
	if span != nil {
		finish(span, err, rows(len(page.Users)))
	}
	return page, err
}

// Log returns a page of the log.
func (s *Store) Log(ctx context.Context, query user.LogQuery) (user.LogPage, error) {
	ctx, span := s.begin(ctx, "Log")
	page, err := s.Store.Log(ctx, query)
	tell(ctx, span, len(page.Rows))
	if span != nil {
		finish(span, err, rows(len(page.Rows)))
	}
	return page, err
}

// Before returns the position of the last row before a time.
func (s *Store) Before(ctx context.Context, t time.Time) (int64, error) {
	ctx, span := s.begin(ctx, "Before")
	position, err := s.Store.Before(ctx, t)
	finish(span, err)
	return position, err
}

// Submit hands a batch in. Its span lasts until the batch has ended, whoever waits
// for it, and so shows the wait for the group commit and the sync.
func (s *Store) Submit(ctx context.Context, batch user.Batch) *user.Pending {
	ctx, span := s.begin(ctx, "Submit")
	pending := s.Store.Submit(ctx, batch)
	tell(ctx, span, len(batch.Changes))
	if span == nil {
		return pending
	}
	// The store ends every batch, so this ends too.
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
