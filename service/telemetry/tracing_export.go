package telemetry

import (
	"context"
	"log/slog"
	"sync/atomic"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

type droppedSpans struct {
	queueFull    atomic.Int64 // the queue was full
	exportFailed atomic.Int64 // the export failed
}

// loggingExporter logs when exporting starts to fail and when it recovers. The SDK's own handler
// is process-wide and logs every batch.
type loggingExporter struct {
	sdktrace.SpanExporter

	log     *slog.Logger
	all     *droppedSpans
	waiting *atomic.Int64 // queued spans
	failing atomic.Bool
	lost    atomic.Int64 // spans dropped since the failure began
}

// ExportSpans exports a batch. It logs an error and returns nil, because the SDK would only log
// it again.
func (e *loggingExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := e.SpanExporter.ExportSpans(ctx, spans)
	e.waiting.Add(-int64(len(spans)))
	if err != nil {
		e.lost.Add(int64(len(spans)))
		e.all.exportFailed.Add(int64(len(spans)))
		if e.failing.CompareAndSwap(false, true) {
			e.log.LogAttrs(ctx, slog.LevelWarn, "span export failed", slog.Any("error", redactValues(err)))
		}
		return nil
	}
	if e.failing.CompareAndSwap(true, false) {
		e.log.LogAttrs(ctx, slog.LevelInfo, "span export recovered", slog.Int64("dropped", e.lost.Swap(0)))
	}
	return nil
}

// queue counts the spans that are dropped when the queue of a batch processor is full, which
// the processor does not report.
type queue struct {
	sdktrace.SpanProcessor

	all     *droppedSpans
	waiting *atomic.Int64
	limit   int64
}

func newQueue(exporter sdktrace.SpanExporter, limit int, log *slog.Logger, all *droppedSpans) *queue {
	waiting := new(atomic.Int64)
	logging := &loggingExporter{SpanExporter: exporter, log: log, all: all, waiting: waiting}
	return &queue{
		SpanProcessor: sdktrace.NewBatchSpanProcessor(logging, sdktrace.WithMaxQueueSize(limit)),
		all:           all, waiting: waiting, limit: int64(limit),
	}
}

// OnEnd queues a finished span.
func (q *queue) OnEnd(span sdktrace.ReadOnlySpan) {
	if !span.SpanContext().IsSampled() {
		return
	}
	if q.waiting.Add(1) > q.limit {
		q.waiting.Add(-1)
		q.all.queueFull.Add(1)
		return
	}
	q.SpanProcessor.OnEnd(span)
}
