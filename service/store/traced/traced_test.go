package traced_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/yourorg/userservice/service/store/traced"
	"github.com/yourorg/userservice/service/user"
)

// fakeStore returns fixed results and err.
type fakeStore struct {
	user.Store

	err         error
	spanContext trace.SpanContext // of the last call
	complete    func([]user.Result, error)
	observed    bool
}

func (s *fakeStore) record(ctx context.Context) { s.spanContext = trace.SpanContextFromContext(ctx) }

func (s *fakeStore) Head(context.Context) (user.Head, error) { return user.Head{Position: 7}, s.err }
func (s *fakeStore) Observe(func(user.Commit))               { s.observed = true }
func (s *fakeStore) Probe(ctx context.Context) error         { s.record(ctx); return s.err }
func (s *fakeStore) Close() error                            { return s.err }

func (s *fakeStore) Before(ctx context.Context, _ time.Time) (int64, error) {
	s.record(ctx)
	return 2, s.err
}

func (s *fakeStore) Get(ctx context.Context, id int64) (*user.User, error) {
	s.record(ctx)
	return &user.User{ID: id, Username: "alice", Email: "alice@example.com"}, s.err
}

func (s *fakeStore) Statuses(ctx context.Context, _ []int64) ([]user.CurrentStatus, error) {
	s.record(ctx)
	return make([]user.CurrentStatus, 2), s.err
}

func (s *fakeStore) GetMany(ctx context.Context, ids []int64) ([]*user.User, error) {
	s.record(ctx)
	return make([]*user.User, len(ids)-1), s.err
}

func (s *fakeStore) List(ctx context.Context, _ user.ListQuery) (user.ListPage, error) {
	s.record(ctx)
	return user.ListPage{Users: make([]*user.User, 5)}, s.err
}

func (s *fakeStore) Count(ctx context.Context, _ user.ListQuery) (user.Count, error) {
	s.record(ctx)
	return user.Count{Users: 6}, s.err
}

func (s *fakeStore) Log(ctx context.Context, _ user.LogQuery) (user.LogPage, error) {
	s.record(ctx)
	return user.LogPage{Rows: make([]user.Activity, 4)}, s.err
}

func (s *fakeStore) Submit(ctx context.Context, _ user.Batch) *user.Pending {
	s.record(ctx)
	p, complete := user.NewPending()
	s.complete = complete
	return p
}

func recording() (*sdktrace.TracerProvider, *tracetest.SpanRecorder) {
	recorder := tracetest.NewSpanRecorder()
	return sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder)), recorder
}

func describe(span sdktrace.ReadOnlySpan) string {
	text := span.Name()
	for _, a := range span.Attributes() {
		if !strings.HasPrefix(string(a.Key), "db.system") && a.Key != "db.operation.name" {
			text += fmt.Sprintf(" %s=%s", a.Key[strings.LastIndex(string(a.Key), ".")+1:], a.Value.String())
		}
	}
	if span.Status().Code == codes.Error {
		text += " failed" + span.Status().Description
	}
	return text
}

var reads = map[string]func(context.Context, user.Store) error{
	"store.Before": func(ctx context.Context, s user.Store) error { _, err := s.Before(ctx, time.Time{}); return err },
	"store.Get":    func(ctx context.Context, s user.Store) error { _, err := s.Get(ctx, 5); return err },
	"store.GetMany size=3 returned_rows=2": func(ctx context.Context, s user.Store) error {
		_, err := s.GetMany(ctx, []int64{1, 2, 3})
		return err
	},
	"store.Statuses size=3 returned_rows=2": func(ctx context.Context, s user.Store) error {
		_, err := s.Statuses(ctx, []int64{1, 2, 3})
		return err
	},
	"store.List returned_rows=5": func(ctx context.Context, s user.Store) error { _, err := s.List(ctx, user.ListQuery{}); return err },
	"store.Count":                func(ctx context.Context, s user.Store) error { _, err := s.Count(ctx, user.ListQuery{}); return err },
	"store.Log returned_rows=4":  func(ctx context.Context, s user.Store) error { _, err := s.Log(ctx, user.LogQuery{}); return err },
}

func TestReadsAreChildSpansOfTheCall(t *testing.T) {
	provider, recorder := recording()
	inner := &fakeStore{}
	store := traced.New(inner, provider, "sqlite")
	for want, read := range reads {
		recorder.Reset()
		ctx, call := provider.Tracer("test").Start(t.Context(), "call")
		if err := read(ctx, store); err != nil {
			t.Errorf("%s: %v", want, err)
		}
		spans := recorder.Ended()
		if len(spans) != 1 || describe(spans[0]) != want || spans[0].Parent().SpanID() != call.SpanContext().SpanID() ||
			!inner.spanContext.Equal(spans[0].SpanContext()) {
			t.Errorf("spans = %v, want one child span %s", spans, want)
		}
	}
}

// untraced are the operations without spans: those of maintenance, and those that read memory only.
var untraced = []string{"Head", "First", "Observe", "DuePurges", "Redact", "ExpireRequestIDs", "Prune", "Probe", "Close"}

func TestEachOperationIsTracedOrListed(t *testing.T) {
	listed := slices.Concat(untraced, []string{"Submit"}) // TestSubmitSpanEndsWhenBatchCompletes
	for want := range reads {
		name, _, _ := strings.Cut(strings.TrimPrefix(want, "store."), " ")
		listed = append(listed, name)
	}
	store := reflect.TypeFor[user.Store]()
	for i := range store.NumMethod() {
		if name := store.Method(i).Name; !slices.Contains(listed, name) {
			t.Errorf("%s is neither in reads nor in untraced", name)
		}
	}
}

func TestNoSpanWithoutRecordingParent(t *testing.T) {
	provider, recorder := recording()
	store := traced.New(&fakeStore{}, provider, "sqlite")
	unsampled := trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1},
	}))
	over, span := provider.Tracer("test").Start(t.Context(), "call")
	span.End()
	recorder.Reset()
	for _, ctx := range []context.Context{t.Context(), unsampled, over} {
		for want, read := range reads {
			if err := read(ctx, store); err != nil {
				t.Errorf("%s: %v", want, err)
			}
		}
		_ = store.Submit(ctx, user.Batch{})
	}
	if got := recorder.Started(); len(got) != 0 {
		t.Errorf("spans started = %v, want none", got)
	}
	ctx := t.Context()
	if n := testing.AllocsPerRun(100, func() { _, _ = store.Before(ctx, time.Time{}) }); n != 0 {
		t.Errorf("untraced call: %v allocations, want 0", n)
	}
}

func TestErrorSpansHaveNoUserData(t *testing.T) {
	for want, err := range map[string]error{
		"store.Get type=USER_NOT_FOUND":           user.NewNotFoundError(5),
		"store.Get type=unexpected failed":        errors.New("SELECT * FROM users WHERE email = 'alice@example.com'"),
		"store.Get type=canceled":                 context.Canceled,
		"store.Get type=deadline_exceeded failed": fmt.Errorf("read: %w", context.DeadlineExceeded),
	} {
		provider, recorder := recording()
		ctx, call := provider.Tracer("test").Start(t.Context(), "call")
		_, got := traced.New(&fakeStore{err: err}, provider, "sqlite").Get(ctx, 5)
		if !errors.Is(got, err) {
			t.Errorf("Get error = %v, want %v", got, err)
		}
		spans := recorder.Ended()
		call.End()
		if len(spans) != 1 || describe(spans[0]) != want || len(spans[0].Events()) != 0 {
			t.Errorf("span = %s, want %s", describe(spans[0]), want)
		}
	}
}

func TestSubmitSpanEndsWhenBatchCompletes(t *testing.T) {
	for want, outcome := range map[string]struct {
		results []user.Result
		err     error
	}{
		"store.Submit size=2 failed_changes=1":                        {results: []user.Result{{}, {Err: user.NewNotFoundError(1)}}},
		"store.Submit size=2 failed_changes=0":                        {results: []user.Result{{}, {}}},
		"store.Submit size=2 failed_changes=0 type=STORE_READ_ONLY":   {err: user.NewStoreReadOnlyError()},
		"store.Submit size=2 failed_changes=0 type=unexpected failed": {err: errors.New("io")},
		"store.Submit size=2 failed_changes=1 type=USER_NOT_FOUND":    {results: []user.Result{{Err: user.NewNotFoundError(1)}}},
		"store.Submit size=2 failed_changes=1 type=unexpected failed": {results: []user.Result{{Err: errors.New("bug")}}},
	} {
		synctest.Test(t, func(t *testing.T) {
			provider, recorder := recording()
			inner := &fakeStore{}
			ctx, call := provider.Tracer("test").Start(t.Context(), "call")
			defer call.End()
			calling, cancel := context.WithCancel(ctx)
			pending := traced.New(inner, provider, "sqlite").Submit(calling, user.Batch{Changes: make([]user.Change, 2)})
			cancel() // does not cancel a submitted batch
			time.Sleep(20 * time.Millisecond)
			synctest.Wait()
			if len(recorder.Ended()) != 0 {
				t.Error("span ended before the batch completed")
			}
			inner.complete(outcome.results, outcome.err)
			results, err := pending.Wait(t.Context())
			if len(results) != len(outcome.results) || !errors.Is(err, outcome.err) {
				t.Errorf("Wait = %v, %v", results, err)
			}
			synctest.Wait()
			spans := recorder.Ended()
			if len(spans) != 1 || spans[0].EndTime().Sub(spans[0].StartTime()) != 20*time.Millisecond || describe(spans[0]) != want {
				t.Fatalf("span = %s, want %s", describe(spans[0]), want)
			}
		})
	}
}

func TestUntracedOperations(t *testing.T) {
	provider, recorder := recording()
	inner := &fakeStore{}
	store := traced.New(inner, provider, "sqlite")
	ctx, call := provider.Tracer("test").Start(t.Context(), "call")
	head, _ := store.Head(ctx)
	store.Observe(nil)
	_ = store.Probe(ctx)
	if head.Position != 7 || !inner.observed || store.Unwrap() != user.Store(inner) || store.Close() != nil {
		t.Error("a call was not passed to the wrapped store")
	}
	if len(recorder.Ended()) != 0 || !inner.spanContext.Equal(call.SpanContext()) {
		t.Error("an untraced operation started a span")
	}
}

func BenchmarkGet(b *testing.B) {
	provider, _ := recording()
	inner := &fakeStore{}
	for name, store := range map[string]user.Store{"bare": inner, "wrapped": traced.New(inner, provider, "sqlite")} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				_, _ = store.Get(b.Context(), 5)
			}
		})
	}
}
