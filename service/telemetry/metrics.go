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

// scrapeTimeout bounds the time of one scrape, and scrapesAtOnce how many are served
// at the same time: metrics must not become a load of their own.
const (
	scrapeTimeout = 10 * time.Second
	scrapesAtOnce = 4
)

// The steps of housekeeping.
const (
	StepPurge  = "purge"  // of users whose time has come
	StepForget = "forget" // of request ids past their lifetime
)

// authCauses are the causes that package auth gives.
var authCauses = []string{
	"missing", "header", "tokens_disabled", "oversize", "malformed", "type", "algorithm", "embedded_key", "critical", "key_id",
	"unknown_key", "no_keys", "signature", "claims", "issuer", "audience", "expired", "not_yet_valid", "subject",
	"binding", "unverified", "no_name",
}

// Build says which program this is.
type Build struct {
	Version  string
	Revision string // of the source; may be empty
}

// Metrics are what the service counts of itself beside its RPCs, in a registry of
// its own. Its methods are safe for use by many goroutines.
//
// Labels take their values from fixed lists alone: what is on none of them is
// counted as "other", so that nothing a caller sends can make a series. What has a
// label of a short list exists from the start, at zero.
type Metrics struct {
	registry *prometheus.Registry

	commitChanges prometheus.Histogram
	commitSync    prometheus.Histogram
	authRefusals  labelled
	limited       labelled
	tidied        labelled
	tidyFailures  labelled
	tidySuccess   *prometheus.GaugeVec
	requests      httpCounters
	unhandled     httpCounters
}

// NewMetrics returns metrics with those of the build, the Go runtime and the process.
func NewMetrics(build Build) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	version := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "userd_build_info", Help: "Which program this is; always 1.",
		ConstLabels: prometheus.Labels{
			"version": build.Version, "revision": build.Revision, "goversion": runtime.Version(),
		},
	})
	version.Set(1)
	m.commitChanges = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "userd_commit_changes", Help: "Changes that one transaction carried out.",
		Buckets: prometheus.ExponentialBuckets(1, 2, 13), // to 4096
	})
	m.commitSync = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "userd_commit_sync_seconds", Help: "Time of a commit, most of which is the sync to disk.",
		Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
	})
	m.tidySuccess = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "userd_housekeeping_last_success_timestamp_seconds",
		Help: "When a step of housekeeping last ended well; 0: not since the start.",
	}, []string{"step"})
	m.registry.MustRegister(version, m.commitChanges, m.commitSync, m.tidySuccess,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	steps := []string{StepPurge, StepForget}
	for _, step := range steps {
		m.tidySuccess.WithLabelValues(step)
	}
	m.authRefusals = m.labelled("userd_auth_refusals_total", "Requests whose credentials were refused, by the cause.", "cause", authCauses...)
	m.limited = m.labelled("userd_limited_total", "Messages that were too large, and requests that were refused for another limit before they became a call.",
		"reason", "MESSAGE_TOO_LARGE", "RATE_LIMITED", "OVERLOADED", "HOST_NOT_ALLOWED", "ORIGIN_NOT_ALLOWED")
	m.tidied = m.labelled("userd_housekeeping_done_total", "Users purged and request ids forgotten.", "step", steps...)
	m.tidyFailures = m.labelled("userd_housekeeping_failures_total", "Steps of housekeeping that failed.", "step", steps...)
	m.requests = m.httpCounters("userd_http_requests_total",
		"HTTP requests by the protocol they speak and the status of the answer.")
	m.unhandled = m.httpCounters("userd_http_unhandled_total",
		"HTTP requests that should have become a call and did not: wrong paths and methods, refused callers, messages that cannot be decoded.")
	return m
}

// Registry is where further collectors go.
func (m *Metrics) Registry() prometheus.Registerer { return m.registry }

// Gatherer gives what the registry holds.
func (m *Metrics) Gatherer() prometheus.Gatherer { return m.registry }

// Handler serves the metrics in the forms that Prometheus asks for; in that of
// OpenMetrics they carry exemplars.
func (m *Metrics) Handler(log *slog.Logger) http.Handler {
	return promhttp.InstrumentMetricHandler(m.registry, promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		ErrorLog: scrapeLog{log},
		// One collector that fails does not take the others along.
		ErrorHandling:       promhttp.ContinueOnError,
		Registry:            m.registry,
		EnableOpenMetrics:   true,
		MaxRequestsInFlight: scrapesAtOnce,
		Timeout:             scrapeTimeout,
	}))
}

// scrapeLog tells of failures to gather or to send.
type scrapeLog struct{ log *slog.Logger }

// Println logs what went wrong with a scrape.
func (s scrapeLog) Println(what ...any) {
	var failure error
	for _, part := range what {
		if err, ok := part.(error); ok {
			failure = errors.Join(failure, err)
		}
	}
	s.log.Warn("metrics cannot be given in full", "error", failure)
}

// ObserveCommit notes a commit: how many changes shared it, and what it took.
func (m *Metrics) ObserveCommit(changes int, sync time.Duration) {
	m.commitChanges.Observe(float64(changes))
	m.commitSync.Observe(sync.Seconds())
}

// AuthRefused counts refused credentials, by the cause that package auth gives. It
// tells more than the reason that callers are given.
func (m *Metrics) AuthRefused(cause string) { m.authRefusals.of(cause).Inc() }

// Limited counts a refusal for a limit, by its reason in the proto, whether the message
// was to begin a call or came within a stream. What an interceptor or a handler
// refuses is counted with the errors of calls.
func (m *Metrics) Limited(reason string) { m.limited.of(reason).Inc() }

// Tidied notes the end of a step of housekeeping: how much it did, and its error. now
// is when it ended.
func (m *Metrics) Tidied(step string, count int, now time.Time, err error) {
	m.tidied.of(step).Add(float64(count))
	if err != nil {
		m.tidyFailures.of(step).Inc()
		return
	}
	if _, known := m.tidied.known[step]; known {
		m.tidySuccess.WithLabelValues(step).Set(float64(now.UnixMilli()) / 1e3)
	}
}

// labelled are counters for a fixed list of values of one label.
type labelled struct {
	known map[string]prometheus.Counter // never changed
	other prometheus.Counter
}

func (m *Metrics) labelled(name, help, label string, values ...string) labelled {
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
	m.registry.MustRegister(vec)
	l := labelled{known: make(map[string]prometheus.Counter), other: vec.WithLabelValues("other")}
	for _, value := range values {
		l.known[value] = vec.WithLabelValues(value)
	}
	return l
}

func (l labelled) of(value string) prometheus.Counter {
	if c, ok := l.known[value]; ok {
		return c
	}
	return l.other
}
