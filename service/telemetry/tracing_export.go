package telemetry

import (
	"context"
	"log/slog"
	"sync/atomic"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// loudExporter logs when a collector stops taking spans and when it takes them again.
// Without it a failure goes to a handler that is shared by the whole process, once
// for every batch.
type loudExporter struct {
	sdktrace.SpanExporter

	log     *slog.Logger
	failing atomic.Bool
	lost    atomic.Int64 // spans since it has been failing
}

// ExportSpans hands a batch on. Its failure is told of here and nowhere else: there is
// nothing that the caller could do but drop the batch.
func (e *loudExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := e.SpanExporter.ExportSpans(ctx, spans)
	if err != nil {
		e.lost.Add(int64(len(spans)))
		if e.failing.CompareAndSwap(false, true) {
			e.log.LogAttrs(ctx, slog.LevelWarn, "spans cannot be exported and are lost", slog.Any("error", err))
		}
		return nil
	}
	if e.failing.CompareAndSwap(true, false) {
		e.log.LogAttrs(ctx, slog.LevelInfo, "spans are exported again", slog.Int64("lost", e.lost.Swap(0)))
	}
	return nil
}
