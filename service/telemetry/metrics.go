package telemetry

import (
	"errors"
	"log/slog"
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Limits for scrapes.
const (
	scrapeTimeout        = 10 * time.Second
	maxConcurrentScrapes = 4
)

// Housekeeping tasks.
const (
	StepPurge  = "purge"  // purge deleted users
	StepExpire = "expire" // delete expired request ids
	StepPrune  = "prune"  // prune the log
)

// Build identifies the program.
type Build struct {
	Version  string
	Revision string // of the source tree; may be empty
}

// Metrics is a registry with the service's metrics. It is safe for concurrent use.
//
// Label values come from fixed lists; any other value is counted as "other", so a caller
// cannot create series. Counters with a short list start at zero.
type Metrics struct {
	registry *prometheus.Registry

	commitChanges        prometheus.Histogram
	commitSync           prometheus.Histogram
	authFailures         labeledCounter
	rejected             labeledCounter
	storeReads           labeledCounter
	housekeepingItems    labeledCounter
	housekeepingFailures labeledCounter
	housekeepingSuccess  *prometheus.GaugeVec
	requests             httpCounters
	unhandled            httpCounters
}

// NewMetrics returns metrics with the build info and the Go and process collectors.
func NewMetrics(build Build) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	version := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "userd_build_info", Help: "Build information; always 1.",
		ConstLabels: prometheus.Labels{
			"version": build.Version, "revision": build.Revision, "goversion": runtime.Version(),
		},
	})
	version.Set(1)
	m.commitChanges = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "userd_commit_changes", Help: "Number of changes in a transaction.",
		Buckets: prometheus.ExponentialBuckets(1, 2, 13), // to 4096
	})
	m.commitSync = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "userd_commit_sync_seconds", Help: "Duration of commits in seconds, including the sync to disk.",
		Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
	})
	m.housekeepingSuccess = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "userd_housekeeping_last_success_timestamp_seconds",
		Help: "Unix time of the last successful run of a housekeeping step; 0 if none since the start.",
	}, []string{"step"})
	m.registry.MustRegister(version, m.commitChanges, m.commitSync, m.housekeepingSuccess,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	steps := []string{StepPurge, StepExpire, StepPrune}
	for _, step := range steps {
		m.housekeepingSuccess.WithLabelValues(step)
	}
	m.authFailures = m.labeledCounter("userd_authentication_failures_total", "Total number of requests with rejected credentials, by reason.", "reason")
	m.rejected = m.labeledCounter("userd_requests_rejected_total", "Total number of requests and messages rejected by a limit before a handler, by ErrorReason.",
		"reason", "MESSAGE_TOO_LARGE", "RATE_LIMITED", "OVERLOADED", "HOST_NOT_ALLOWED", "ORIGIN_NOT_ALLOWED")
	m.storeReads = m.labeledCounter("userd_store_reads_total", "Total number of reads of a PostgreSQL store, by the database that was read.", "source", "primary", "replica")
	m.housekeepingItems = m.labeledCounter("userd_housekeeping_items_total", "Total number of purged users, expired request ids and pruned log rows, by step.", "step", steps...)
	m.housekeepingFailures = m.labeledCounter("userd_housekeeping_failures_total", "Total number of failed housekeeping steps.", "step", steps...)
	m.requests = m.httpCounters("userd_http_requests_total",
		"Total number of HTTP requests, by protocol and status.")
	m.unhandled = m.httpCounters("userd_http_unhandled_total",
		"Total number of HTTP requests that reached no RPC handler, by protocol and status: unknown path or method, rejected caller, undecodable message.")
	return m
}

// Registry returns the registry, for additional collectors.
func (m *Metrics) Registry() prometheus.Registerer { return m.registry }

// Gatherer returns the registry for reading.
func (m *Metrics) Gatherer() prometheus.Gatherer { return m.registry }

// Handler serves the metrics in the Prometheus text format, or as OpenMetrics with exemplars.
func (m *Metrics) Handler(log *slog.Logger) http.Handler {
	return promhttp.InstrumentMetricHandler(m.registry, promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		ErrorLog: scrapeLog{log},
		// A failing collector must not hide the others.
		ErrorHandling:       promhttp.ContinueOnError,
		Registry:            m.registry,
		EnableOpenMetrics:   true,
		MaxRequestsInFlight: maxConcurrentScrapes,
		Timeout:             scrapeTimeout,
	}))
}

type scrapeLog struct{ log *slog.Logger }

// Println implements promhttp.Logger.
func (s scrapeLog) Println(what ...any) {
	var failure error
	for _, part := range what {
		if err, ok := part.(error); ok {
			failure = errors.Join(failure, err)
		}
	}
	s.log.Warn("metrics scrape incomplete", "error", failure)
}

// ObserveCommit records the number of changes and the duration of a commit.
func (m *Metrics) ObserveCommit(changes int, sync time.Duration) {
	m.commitChanges.Observe(float64(changes))
	m.commitSync.Observe(sync.Seconds())
}

// AddAuthenticationCauses defines the causes that AuthenticationFailed counts; it counts other ones
// as "other". It must be called before.
func (m *Metrics) AddAuthenticationCauses(causes ...string) { m.authFailures.add(causes...) }

// AuthenticationFailed counts rejected credentials by auth.Cause, which is more detailed than
// the ErrorReason in the response.
func (m *Metrics) AuthenticationFailed(cause string) { m.authFailures.of(cause).Inc() }

// RequestRejected counts a request or stream message rejected by a limit, by ErrorReason.
// Rejections by interceptors and handlers are counted in userd_errors_total.
func (m *Metrics) RequestRejected(reason string) { m.rejected.of(reason).Inc() }

// StoreRead counts a read of a PostgreSQL store by its source, primary or replica.
func (m *Metrics) StoreRead(source string) { m.storeReads.of(source).Inc() }

// HousekeepingDone records the end of a housekeeping step at now: the number of items, or its
// error.
func (m *Metrics) HousekeepingDone(step string, count int, now time.Time, err error) {
	m.housekeepingItems.of(step).Add(float64(count))
	if err != nil {
		m.housekeepingFailures.of(step).Inc()
		return
	}
	if _, ok := m.housekeepingItems.byValue[step]; ok {
		m.housekeepingSuccess.WithLabelValues(step).Set(float64(now.UnixMilli()) / 1e3)
	}
}

// labeledCounter is a counter with one label and a fixed list of values.
type labeledCounter struct {
	vec     *prometheus.CounterVec
	byValue map[string]prometheus.Counter // immutable after the start
	other   prometheus.Counter
}

func (m *Metrics) labeledCounter(name, help, label string, values ...string) labeledCounter {
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
	m.registry.MustRegister(vec)
	l := labeledCounter{vec: vec, byValue: make(map[string]prometheus.Counter), other: vec.WithLabelValues("other")}
	l.add(values...)
	return l
}

func (l labeledCounter) add(values ...string) {
	for _, value := range values {
		l.byValue[value] = l.vec.WithLabelValues(value)
	}
}

func (l labeledCounter) of(value string) prometheus.Counter {
	if c, ok := l.byValue[value]; ok {
		return c
	}
	return l.other
}
