package telemetry

import (
	"errors"
	"math"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Sources are the parts of the service that metrics ask when they are read. Each is
// called on the goroutine of a scrape, several at once, and must return quickly. One
// that is nil leaves its metric out.
type Sources struct {
	// StoreHead is the end of the log as the store has it, FeedHead as streams have
	// been told of it; each as the last position and its time, zero where there is
	// no row. ok is false where the store does not answer.
	StoreHead func() (position int64, at time.Time, ok bool)
	FeedHead  func() (position int64, at time.Time)
	// StreamLag is how many rows the activity stream that is furthest behind has yet to
	// read.
	StreamLag func() int64

	StoreBytes func() int64 // size of the database
	WALBytes   func() int64 // size of its write-ahead log

	// ClockJumps counts jumps of the system clock, ClockConfirmed reports whether it is
	// taken as right.
	ClockJumps     func() (forward, backward int64)
	ClockConfirmed func() bool

	StoreReadOnly func() bool // the store takes no more writes until it is opened again
	ServesReads   func() bool // as health says
	ServesWrites  func() bool // as health says
	Draining      func() bool // the server is about to stop

	// StalledReaders is how many streams and answers were cut since their readers
	// took nothing, LateBodies how many requests since their bodies did not come;
	// both since the start.
	StalledReaders, LateBodies func() int64

	// LostSpans is how many spans are lost since the start: for want of room in the
	// queue, and since the collector did not take them.
	LostSpans func() (crowded, unserved int64)
}

// Watch registers the metrics that the sources give. It is to be called once.
func (m *Metrics) Watch(s Sources) error {
	w := watcher{registry: m.registry}
	if s.StoreHead != nil {
		w.gauge("userd_log_position", "Position of the last row of the log.", func() float64 {
			position, _, ok := s.StoreHead()
			return known(float64(position), ok)
		})
		w.gauge("userd_log_last_commit_timestamp_seconds", "Commit time of the last row of the log; 0: there is none.", func() float64 {
			_, at, ok := s.StoreHead()
			return known(unixSeconds(at), ok)
		})
	}
	if s.FeedHead != nil {
		w.gauge("userd_feed_position", "Position up to which streams have been told of the log.", func() float64 {
			position, _ := s.FeedHead()
			return float64(position)
		})
	}
	if s.StoreHead != nil && s.FeedHead != nil {
		w.gauge("userd_feed_lag_rows", "Rows of the log that streams have not been told of.", func() float64 {
			// The feed is asked first: rows that come in between are no lag below zero.
			told, _ := s.FeedHead()
			there, _, ok := s.StoreHead()
			return known(float64(there-told), ok)
		})
	}
	w.amount("userd_stream_lag_rows", "Rows of the log that the open activity stream which is furthest behind has yet to read.", s.StreamLag)
	w.amount("userd_store_size_bytes", "Size of the database.", s.StoreBytes)
	w.amount("userd_store_wal_size_bytes", "Size of the write-ahead log, which shrinks at a checkpoint or not at all.", s.WALBytes)
	w.flag("userd_store_read_only", "1: the store takes no more writes until it is opened again.", s.StoreReadOnly)
	w.flag("userd_serves_reads", "1: calls are served, reads at least.", s.ServesReads)
	w.flag("userd_serves_writes", "1: writes are served.", s.ServesWrites)
	w.flag("userd_draining", "1: the server is about to stop.", s.Draining)
	w.flag("userd_clock_confirmed", "1: the system clock is taken as right.", s.ClockConfirmed)
	if s.ClockJumps != nil {
		w.jumps("forward", func() int64 { forward, _ := s.ClockJumps(); return forward })
		w.jumps("backward", func() int64 { _, backward := s.ClockJumps(); return backward })
	}
	w.cuts("stalled_reader", s.StalledReaders)
	w.cuts("late_body", s.LateBodies)
	if s.LostSpans != nil {
		w.lost("queue_full", func() int64 { crowded, _ := s.LostSpans(); return crowded })
		w.lost("not_taken", func() int64 { _, unserved := s.LostSpans(); return unserved })
	}
	return w.failures
}

// watcher registers metrics that are asked for when they are read.
type watcher struct {
	registry *prometheus.Registry
	failures error
}

func (w *watcher) add(c prometheus.Collector) {
	w.failures = errors.Join(w.failures, w.registry.Register(c))
}

func (w *watcher) gauge(name, help string, value func() float64) {
	w.add(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
}

func (w *watcher) amount(name, help string, amount func() int64) {
	if amount != nil {
		w.gauge(name, help, func() float64 { return float64(amount()) })
	}
}

func (w *watcher) flag(name, help string, set func() bool) {
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

func (w *watcher) cuts(reason string, count func() int64) {
	if count == nil {
		return
	}
	w.add(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "userd_cut_total", Help: "Requests cut since the peer took nothing, or sent nothing, for too long.",
		ConstLabels: prometheus.Labels{"reason": reason},
	}, func() float64 { return float64(count()) }))
}

func (w *watcher) jumps(direction string, count func() int64) {
	w.add(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "userd_clock_jumps_total", Help: "Jumps of the system clock by more than a minute.",
		ConstLabels: prometheus.Labels{"direction": direction},
	}, func() float64 { return float64(count()) }))
}

func (w *watcher) lost(reason string, count func() int64) {
	w.add(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "userd_spans_lost_total", Help: "Spans that were recorded and never exported: the queue was full, or the collector did not take them.",
		ConstLabels: prometheus.Labels{"reason": reason},
	}, func() float64 { return float64(count()) }))
}

// FileSize returns a function that gives the size of a file, 0 where there is none.
func FileSize(path string) func() int64 {
	return func() int64 {
		info, err := os.Stat(path)
		if err != nil {
			return 0
		}
		return info.Size()
	}
}

// known gives what is not known as such: a zero would look like an empty log.
func known(value float64, ok bool) float64 {
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
