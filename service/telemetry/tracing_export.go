package telemetry

import (
	"context"
	"log/slog"
	"sync/atomic"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// lostSpans counts spans that were recorded and never exported.
type lostSpans struct {
	crowded  atomic.Int64 // there was no room for them in the queue
	unserved atomic.Int64 // the collector did not take them
}

// loudExporter logs when a collector stops taking spans and when it takes them again.
// Without it a failure goes to a handler that is shared by the whole process, once
// for every batch.
type loudExporter struct {
	sdktrace.SpanExporter

	log     *slog.Logger
	all     *lostSpans
	waiting *atomic.Int64 // spans in the queue in front
	failing atomic.Bool
	lost    atomic.Int64 // spans since it has been failing
}

// ExportSpans hands a batch on. Its failure is told of here and nowhere else: there is
// nothing that the caller could do but drop the batch.
func (e *loudExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := e.SpanExporter.ExportSpans(ctx, spans)
	e.waiting.Add(-int64(len(spans)))
	if err != nil {
		e.lost.Add(int64(len(spans)))
		e.all.unserved.Add(int64(len(spans)))
		if e.failing.CompareAndSwap(false, true) {
			e.log.LogAttrs(ctx, slog.LevelWarn, "spans cannot be exported and are lost", slog.Any("error", withoutValues(err)))
		}
		return nil
	}
	if e.failing.CompareAndSwap(true, false) {
		e.log.LogAttrs(ctx, slog.LevelInfo, "spans are exported again", slog.Int64("lost", e.lost.Swap(0)))
	}
	return nil
}

// queue hands spans to a batch processor for as long as it has room. The processor
// itself drops what is beyond its queue without telling anybody.
type queue struct {
	sdktrace.SpanProcessor

	all     *lostSpans
	waiting *atomic.Int64
	room    int64
}

// newQueue returns the way to an exporter.
func newQueue(exporter sdktrace.SpanExporter, room int, log *slog.Logger, all *lostSpans) *queue {
	waiting := new(atomic.Int64)
	loud := &loudExporter{SpanExporter: exporter, log: log, all: all, waiting: waiting}
	return &queue{
		SpanProcessor: sdktrace.NewBatchSpanProcessor(loud, sdktrace.WithMaxQueueSize(room)),
		all:           all, waiting: waiting, room: int64(room),
	}
}

// OnEnd takes a span that has ended.
func (q *queue) OnEnd(span sdktrace.ReadOnlySpan) {
	if !span.SpanContext().IsSampled() {
		return
	}
	if q.waiting.Add(1) > q.room {
		q.waiting.Add(-1)
		q.all.crowded.Add(1)
		return
	}
	q.SpanProcessor.OnEnd(span)
}
