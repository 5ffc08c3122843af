package telemetry_test

import (
	"errors"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/yourorg/userservice/service/telemetry"
)

// gathered returns the value of each series by name{label="value",…}; for histograms the count.
func gathered(t *testing.T, from prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := from.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]float64)
	for _, family := range families {
		for _, m := range family.GetMetric() {
			all[seriesName(family, m)] = m.GetCounter().GetValue() + m.GetGauge().GetValue() +
				float64(m.GetHistogram().GetSampleCount())
		}
	}
	return all
}

func seriesName(family *dto.MetricFamily, m *dto.Metric) string {
	labels := make([]string, 0, len(m.GetLabel()))
	for _, l := range m.GetLabel() {
		labels = append(labels, l.GetName()+"="+l.GetValue())
	}
	return family.GetName() + "{" + strings.Join(labels, ",") + "}"
}

func want(t *testing.T, all map[string]float64, series string, value float64) {
	t.Helper()
	if got, ok := all[series]; !ok || got != value {
		t.Errorf("%s = %v (exists: %v), want %v", series, got, ok, value)
	}
}

func TestUnknownLabelValuesCountAsOther(t *testing.T) {
	m := telemetry.NewMetrics(telemetry.Build{Version: "v1"})
	m.AddAuthenticationCauses("missing", "expired")
	before := len(gathered(t, m.Gatherer()))
	m.AuthenticationFailed("expired")
	m.RequestRejected("RATE_LIMITED")
	for _, stranger := range []string{"", "nonsense", "X\nY", strings.Repeat("z", 1<<16)} {
		m.AuthenticationFailed(stranger)
		m.RequestRejected(stranger)
		m.HousekeepingDone(stranger, 1, time.Unix(1, 0), nil)
	}
	all := gathered(t, m.Gatherer())
	if len(all) != before {
		t.Errorf("%d series before, %d after", before, len(all))
	}
	want(t, all, "userd_authentication_failures_total{reason=expired}", 1)
	want(t, all, "userd_authentication_failures_total{reason=missing}", 0)
	want(t, all, "userd_authentication_failures_total{reason=other}", 4)
	want(t, all, "userd_requests_rejected_total{reason=RATE_LIMITED}", 1)
	want(t, all, "userd_requests_rejected_total{reason=other}", 4)
}

func TestCommitsAndHousekeeping(t *testing.T) {
	m := telemetry.NewMetrics(telemetry.Build{Version: "v1"})
	m.ObserveCommit(1, time.Millisecond)
	m.ObserveCommit(300, 20*time.Millisecond)
	m.HousekeepingDone(telemetry.StepPurge, 7, time.Unix(1700000000, 0), nil)
	m.HousekeepingDone(telemetry.StepExpire, 2, time.Unix(1700000001, 0), errors.New("disk full"))
	all := gathered(t, m.Gatherer())
	want(t, all, "userd_commit_changes{}", 2)
	want(t, all, "userd_commit_sync_seconds{}", 2)
	want(t, all, "userd_housekeeping_items_total{step=purge}", 7)
	want(t, all, "userd_housekeeping_items_total{step=expire}", 2)
	want(t, all, "userd_housekeeping_failures_total{step=purge}", 0)
	want(t, all, "userd_housekeeping_failures_total{step=expire}", 1)
	want(t, all, "userd_housekeeping_last_success_timestamp_seconds{step=purge}", 1700000000)
	want(t, all, "userd_housekeeping_last_success_timestamp_seconds{step=expire}", 0)
}

func TestSources(t *testing.T) {
	m := telemetry.NewMetrics(telemetry.Build{Version: "v1"})
	wal := filepath.Join(t.TempDir(), "db-wal")
	committed, delivered, readOnly, aborted := int64(10), int64(8), false, int64(0)
	at, responds := time.Unix(1700000000, 500_000_000), true
	err := m.RegisterSources(telemetry.Sources{
		StoreHead:      func() (int64, time.Time, bool) { return committed, at, responds },
		StoreFirst:     func() (int64, bool) { return 4, responds },
		FeedHead:       func() (int64, time.Time) { return delivered, at },
		StoreBytes:     func() int64 { return 4096 },
		WALBytes:       telemetry.FileSize(wal),
		StoreReadOnly:  func() bool { return readOnly },
		StalledStreams: func() int64 { return aborted },
	})
	if err != nil {
		t.Fatal(err)
	}
	all := gathered(t, m.Gatherer())
	want(t, all, "userd_log_position{}", 10)
	want(t, all, "userd_log_last_commit_timestamp_seconds{}", 1700000000.5)
	want(t, all, "userd_log_first_position{}", 4)
	want(t, all, "userd_feed_position{}", 8)
	want(t, all, "userd_feed_lag_rows{}", 2)
	want(t, all, "userd_store_size_bytes{}", 4096)
	want(t, all, "userd_store_wal_size_bytes{}", 0)
	want(t, all, "userd_store_read_only{}", 0)
	want(t, all, "userd_streams_aborted_total{reason=write_stalled}", 0)
	if _, ok := all["userd_draining{}"]; ok {
		t.Error("a nil source has a metric")
	}
	if err := os.WriteFile(wal, make([]byte, 100), 0o600); err != nil {
		t.Fatal(err)
	}
	delivered, readOnly, aborted, at = 10, true, 3, time.Time{}
	all = gathered(t, m.Gatherer())
	want(t, all, "userd_feed_lag_rows{}", 0)
	want(t, all, "userd_store_wal_size_bytes{}", 100)
	want(t, all, "userd_store_read_only{}", 1)
	want(t, all, "userd_streams_aborted_total{reason=write_stalled}", 3)
	want(t, all, "userd_log_last_commit_timestamp_seconds{}", 0)
	responds = false
	all = gathered(t, m.Gatherer())
	for _, name := range []string{"userd_log_position{}", "userd_log_first_position{}", "userd_log_last_commit_timestamp_seconds{}", "userd_feed_lag_rows{}"} {
		if value, ok := all[name]; !ok || !math.IsNaN(value) {
			t.Errorf("%s of an unresponsive store = %v, want NaN", name, value)
		}
	}
	if m.RegisterSources(telemetry.Sources{StoreReadOnly: func() bool { return false }}) == nil {
		t.Error("second RegisterSources() = nil, want error")
	}
}

func scrape(t *testing.T, handler http.Handler, accept string) (contentType, text string) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", http.NoBody)
	r.Header.Set("Accept", accept)
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, r)
	if recorder.Code != http.StatusOK {
		t.Fatalf("status %d: %s", recorder.Code, recorder.Body)
	}
	return recorder.Header().Get("Content-Type"), recorder.Body.String()
}

func TestExemplarsInOpenMetrics(t *testing.T) {
	m := telemetry.NewMetrics(telemetry.Build{Version: `v1"}`, Revision: "abc"})
	histogram := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "h", Help: "h", Buckets: []float64{1}})
	m.Registry().MustRegister(histogram)
	histogram.(prometheus.ExemplarObserver).ObserveWithExemplar(.5, prometheus.Labels{"trace_id": "c0ffee"}) //nolint:errcheck // every histogram is one
	handler := m.Handler(slog.New(slog.DiscardHandler))

	kind, text := scrape(t, handler, "application/openmetrics-text;version=1.0.0")
	if !strings.HasPrefix(kind, "application/openmetrics-text") || !strings.Contains(text, `# {trace_id="c0ffee"} 0.5`) ||
		!strings.HasSuffix(text, "# EOF\n") {
		t.Errorf("OpenMetrics: content type %s\n%s", kind, text)
	}
	kind, text = scrape(t, handler, "text/plain")
	if !strings.HasPrefix(kind, "text/plain") || strings.Contains(text, "c0ffee") {
		t.Errorf("text: content type %s\n%s", kind, text)
	}
	for _, needed := range []string{
		`version="v1\"}"`, `revision="abc"`, "go_goroutines ", "process_open_fds ", "promhttp_metric_handler_requests_total",
	} {
		if !strings.Contains(text, needed) {
			t.Errorf("%s is missing", needed)
		}
	}
}

func TestFailingCollectorIsLogged(t *testing.T) {
	m := telemetry.NewMetrics(telemetry.Build{Version: "v1"})
	m.Registry().MustRegister(failing{})
	var out strings.Builder
	_, text := scrape(t, m.Handler(slog.New(slog.NewTextHandler(&out, nil))), "text/plain")
	if !strings.Contains(text, "userd_build_info") || !strings.Contains(out.String(), "cannot be asked") {
		t.Errorf("log: %s\nmetrics: %s", &out, text)
	}
}

type failing struct{}

func (failing) Describe(chan<- *prometheus.Desc) {}
func (failing) Collect(to chan<- prometheus.Metric) {
	to <- prometheus.NewInvalidMetric(prometheus.NewDesc("broken", "b", nil, nil), errors.New("cannot be asked"))
}
