package telemetry

import (
	"errors"
	"math"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Sources are functions that are called at each scrape, possibly concurrently. They must
// return quickly. A nil function omits its metric.
type Sources struct {
	// StoreHead and FeedHead return the position and time of the last row in the store, and
	// of the last row delivered to the feed; zero if there is none. ok is false if the store
	// does not respond.
	StoreHead func() (position int64, at time.Time, ok bool)
	FeedHead  func() (position int64, at time.Time)
	// StoreFirst returns the position of the oldest retained row.
	StoreFirst func() (position int64, ok bool)
	// StreamLag returns the number of rows that the slowest activity stream is behind.
	StreamLag func() int64

	StoreBytes func() int64 // size of the database
	WALBytes   func() int64 // size of its write-ahead log

	// ClockJumps counts jumps of the system clock. ClockConfirmed reports whether the clock
	// is trusted.
	ClockJumps     func() (forward, backward int64)
	ClockConfirmed func() bool

	StoreReadOnly func() bool // writes are stopped until a restart
	ServesReads   func() bool // health of reads
	ServesWrites  func() bool // health of writes
	Draining      func() bool // the server is shutting down

	// StalledStreams counts responses aborted by the stall timeout, BodyTimeouts requests
	// aborted because their body was not received in time.
	StalledStreams, BodyTimeouts func() int64

	// Slots returns the numbers of slots held and of requests that wait for one, and counts those
	// that were lent because none was granted for some time.
	Slots func() (held, waiting int, lent int64)

	// DroppedSpans counts dropped spans, because the queue was full and because the export
	// failed.
	DroppedSpans func() (queueFull, exportFailed int64)
}

// RegisterSources registers the metrics of the sources. It must be called once.
func (m *Metrics) RegisterSources(s Sources) error {
	w := sourceRegistry{registry: m.registry}
	if s.StoreHead != nil {
		w.gauge("userd_log_position", "Position of the last log row.", func() float64 {
			position, _, ok := s.StoreHead()
			return orNaN(float64(position), ok)
		})
		w.gauge("userd_log_last_commit_timestamp_seconds", "Commit time of the last log row in Unix seconds; 0 if the log is empty.", func() float64 {
			_, at, ok := s.StoreHead()
			return orNaN(unixSeconds(at), ok)
		})
	}
	if s.StoreFirst != nil {
		w.gauge("userd_log_first_position", "Position of the oldest retained log row; one more than userd_log_position if there is none.", func() float64 {
			position, ok := s.StoreFirst()
			return orNaN(float64(position), ok)
		})
	}
	if s.FeedHead != nil {
		w.gauge("userd_feed_position", "Position up to which the feed has notified streams.", func() float64 {
			position, _ := s.FeedHead()
			return float64(position)
		})
	}
	if s.StoreHead != nil && s.FeedHead != nil {
		w.gauge("userd_feed_lag_rows", "Number of committed log rows that streams have not been notified of.", func() float64 {
			// Read the feed first, so that the difference is not negative.
			delivered, _ := s.FeedHead()
			committed, _, ok := s.StoreHead()
			return orNaN(float64(committed-delivered), ok)
		})
	}
	w.amount("userd_stream_lag_rows", "Number of log rows that the slowest open activity stream is behind.", s.StreamLag)
	w.amount("userd_store_size_bytes", "Size of the database in bytes.", s.StoreBytes)
	w.amount("userd_store_wal_size_bytes", "Size of the write-ahead log in bytes.", s.WALBytes)
	w.flag("userd_store_read_only", "1 if writes are stopped until a restart, else 0.", s.StoreReadOnly)
	w.flag("userd_serves_reads", "1 if reads are served, else 0.", s.ServesReads)
	w.flag("userd_serves_writes", "1 if writes are served, else 0.", s.ServesWrites)
	w.flag("userd_draining", "1 if the server is draining, else 0.", s.Draining)
	w.flag("userd_clock_confirmed", "1 if the system clock is trusted, else 0.", s.ClockConfirmed)
	if s.ClockJumps != nil {
		w.jumps("forward", func() int64 { forward, _ := s.ClockJumps(); return forward })
		w.jumps("backward", func() int64 { _, backward := s.ClockJumps(); return backward })
	}
	w.aborted("write_stalled", s.StalledStreams)
	w.aborted("body_timeout", s.BodyTimeouts)
	if s.Slots != nil {
		w.gauge("userd_slots_held", "Processor slots that requests hold.", func() float64 {
			held, _, _ := s.Slots()
			return float64(held)
		})
		w.gauge("userd_slot_waiters", "Requests that wait for a processor slot, which callers get in turn.", func() float64 {
			_, waiting, _ := s.Slots()
			return float64(waiting)
		})
		w.add(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "userd_slots_lent_total", Help: "Total number of processor slots lent to waiting requests because none was granted for some time.",
		}, func() float64 { _, _, lent := s.Slots(); return float64(lent) }))
	}
	if s.DroppedSpans != nil {
		w.dropped("queue_full", func() int64 { queueFull, _ := s.DroppedSpans(); return queueFull })
		w.dropped("export_failed", func() int64 { _, exportFailed := s.DroppedSpans(); return exportFailed })
	}
	return w.failures
}

// sourceRegistry registers metrics with a callback.
type sourceRegistry struct {
	registry *prometheus.Registry
	failures error
}

func (w *sourceRegistry) add(c prometheus.Collector) {
	w.failures = errors.Join(w.failures, w.registry.Register(c))
}

func (w *sourceRegistry) gauge(name, help string, value func() float64) {
	w.add(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
}

func (w *sourceRegistry) amount(name, help string, amount func() int64) {
	if amount != nil {
		w.gauge(name, help, func() float64 { return float64(amount()) })
	}
}

func (w *sourceRegistry) flag(name, help string, set func() bool) {
	if set == nil {
		return
	}
	w.gauge(name, help, func() float64 {
		if set() {
			return 1
		}
		return 0
	})
}

func (w *sourceRegistry) aborted(reason string, count func() int64) {
	if count == nil {
		return
	}
	w.add(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "userd_streams_aborted_total", Help: "Total number of requests aborted because the peer did not read the response or send the body in time, by reason.",
		ConstLabels: prometheus.Labels{"reason": reason},
	}, func() float64 { return float64(count()) }))
}

func (w *sourceRegistry) jumps(direction string, count func() int64) {
	w.add(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "userd_clock_jumps_total", Help: "Total number of jumps of the system clock by more than a minute, by direction.",
		ConstLabels: prometheus.Labels{"direction": direction},
	}, func() float64 { return float64(count()) }))
}

func (w *sourceRegistry) dropped(reason string, count func() int64) {
	w.add(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "userd_spans_dropped_total", Help: "Total number of sampled spans that were not exported, by reason.",
		ConstLabels: prometheus.Labels{"reason": reason},
	}, func() float64 { return float64(count()) }))
}

// FileSize returns a function that returns the size of a file, 0 if it does not exist.
func FileSize(path string) func() int64 {
	return func() int64 {
		info, err := os.Stat(path)
		if err != nil {
			return 0
		}
		return info.Size()
	}
}

// orNaN returns NaN for an unknown value, because zero would look like an empty log.
func orNaN(value float64, ok bool) float64 {
	if !ok {
		return math.NaN()
	}
	return value
}

func unixSeconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMicro()) / 1e6
}
