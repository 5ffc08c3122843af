package server_test

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

const (
	dashboardFile = "../telemetry/dashboards/userd.json"
	alertsFile    = "../telemetry/alerts/userd.yaml"
)

// notShown lists metrics without a panel or alert, with the reason. A trailing * matches all with the prefix.
var notShown = map[string]string{
	"go_*":                "runtime details; the important ones are shown",
	"process_*":           "the same",
	"promhttp_*":          "about scrapes",
	"userd_feed_position": "the lag is shown instead",
}

// dashboard is the checked part of a dashboard.
type dashboard struct {
	Title, UID string
	Panels     []struct {
		ID      int
		Type    string
		Title   string
		GridPos struct{ X, Y, W, H int }
		Targets []struct{ Expr, RefID string }
	}
	Templating struct {
		List []struct{ Name, Definition string }
	}
}

// rule is an alert or a recording rule.
type rule struct {
	Alert, Record, Expr string
	For                 time.Duration
	Labels, Annotations map[string]string
}

func readDashboard(t *testing.T) (d dashboard) {
	t.Helper()
	text, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

func readRules(t *testing.T) (all []rule) {
	t.Helper()
	text, err := os.ReadFile(alertsFile)
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Name  string
			Rules []rule
		}
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true) // detects a misspelled "for"
	if err := decoder.Decode(&file); err != nil {
		t.Fatal(err)
	}
	for _, group := range file.Groups {
		all = append(all, group.Rules...)
	}
	return all
}

func TestDashboardMetricsExist(t *testing.T) {
	t.Parallel()
	all, d := everything(t), readDashboard(t)
	ids, exprs := make(map[int]bool), 0
	for i, p := range d.Panels {
		if ids[p.ID] || p.Title == "" || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %d (%s): no size, or duplicate id", p.ID, p.Title)
		}
		for _, q := range d.Panels[:i] {
			a, b := p.GridPos, q.GridPos
			if a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H {
				t.Errorf("panel %s overlaps %s", p.Title, q.Title)
			}
		}
		ids[p.ID] = true
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %s has no query", p.Title)
		}
		for _, target := range p.Targets {
			exprs++
			for _, fault := range all.faults(target.Expr) {
				t.Errorf("%s: %s", p.Title, fault)
			}
		}
	}
	for _, v := range d.Templating.List {
		inner, isQuery := strings.CutPrefix(v.Definition, "label_values(")
		if !isQuery {
			continue
		}
		metric, label, _ := strings.Cut(strings.TrimSuffix(inner, ")"), ", ")
		if faults := append(all.faults(metric), all.faults("sum by ("+label+") ("+metric+")")...); len(faults) > 0 {
			t.Errorf("variable %s: %v", v.Name, faults)
		}
	}
	if d.Title == "" || d.UID == "" || exprs == 0 {
		t.Error("incomplete dashboard")
	}
}

var labelInText = regexp.MustCompile(`\$labels\.([a-z_]+)`)

func TestAlertMetricsExist(t *testing.T) {
	t.Parallel()
	all, names := everything(t), make(map[string]bool)
	for _, r := range readRules(t) {
		name := r.Alert + r.Record
		if name == "" || names[name] || r.Alert != "" && r.Record != "" {
			t.Errorf("%q: empty or duplicate name", name)
		}
		names[name] = true
		for _, fault := range all.faults(r.Expr) {
			t.Errorf("%s: %s", name, fault)
		}
		left := all.labelsLeft(strings.TrimSpace(r.Expr))
		if r.Record != "" {
			all[r.Record] = make(map[string]map[string]bool)
			for label := range left {
				all[r.Record][label] = nil
			}
			continue
		}
		if !slices.Contains([]string{"page", "ticket"}, r.Labels["severity"]) ||
			r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
			t.Errorf("%s: severity, summary or description is missing", name)
		}
		for _, text := range r.Annotations {
			for _, label := range labelInText.FindAllStringSubmatch(text, -1) {
				if !left[label[1]] {
					t.Errorf("%s: %q would be empty: the expression gives %v", name, label[0], left)
				}
			}
		}
	}
	if len(names) == 0 {
		t.Error("no rules")
	}
}

// Every metric is in a panel, in an alert or in notShown.
func TestEveryMetricIsShown(t *testing.T) {
	t.Parallel()
	var exprs []string
	for _, p := range readDashboard(t).Panels {
		for _, target := range p.Targets {
			exprs = append(exprs, target.Expr)
		}
	}
	for _, r := range readRules(t) {
		exprs = append(exprs, r.Expr)
	}
	shown := make(map[string]bool)
	for _, expr := range exprs {
		for _, a := range asksFor(expr) {
			shown[family(a.name)] = true
		}
	}
	all, reasons := make(map[string]bool), make(map[string]bool)
	for name := range everything(t) {
		all[family(name)] = true
	}
	for name := range all {
		listed := ""
		for pattern := range notShown {
			if start, open := strings.CutSuffix(pattern, "*"); name == pattern || open && strings.HasPrefix(name, start) {
				listed = pattern
			}
		}
		reasons[listed] = true
		if !shown[name] && listed == "" {
			t.Errorf("%s is in no panel of telemetry/dashboards/userd.json, in no alert and not in notShown", name)
		}
	}
	for pattern, reason := range notShown {
		if !reasons[pattern] || reason == "" || shown[pattern] {
			t.Errorf("%s does not belong in notShown", pattern)
		}
	}
}

// family returns the name of a metric without histogram suffixes.
func family(name string) string {
	for _, part := range []string{"_bucket", "_sum", "_count"} {
		if short, ok := strings.CutSuffix(name, part); ok {
			return short
		}
	}
	return name
}

// TestFaultsAreFound verifies that the checks above detect faults.
func TestFaultsAreFound(t *testing.T) {
	t.Parallel()
	all := everything(t)
	for expr, want := range map[string]string{
		`userd_log_position`: "",
		`sum by (grpc_code) (rate(grpc_server_handled_total{job=~"$job",grpc_code=~"OK|NotFound"}[5m])) > 1e9`: "",
		`histogram_quantile(0.9, sum by (le) (rate(userd_commit_sync_seconds_bucket[$__rate_interval])))`:      "",
		`time() - userd_log_last_commit_timestamp_seconds > 3 and on (job) userd_draining == 0`:                "",
		`grpc_request_duration_seconds_count{status!="DataLoss"}`:                                              "",
		`userd_http_requests_total{code="grpc_14"}`:                                                            "",
		`rate(grpc_server_handled[5m])`:                                                                        "there is no metric grpc_server_handled",
		`userd_commit_sync_seconds`:                                                                            "there is no metric userd_commit_sync_seconds",
		`userd_draining and user_draining`:                                                                     "there is no metric user_draining",
		`grpc_server_handled_total{code="OK"}`:                                                                 "grpc_server_handled_total has no label code",
		`grpc_server_handled_total{job="userd",grpc_code="NOT_FOUND"}`:                                         `grpc_server_handled_total never has grpc_code="NOT_FOUND"`,
		`grpc_request_duration_seconds_count{status="NOT_FOUND"}`:                                              `grpc_request_duration_seconds_count never has status="NOT_FOUND"`,
		`userd_http_requests_total{code="grpc_17"}`:                                                            `userd_http_requests_total never has code="grpc_17"`,
		`userd_requests_rejected_total{reason="TOO_MANY_STREAMS"}`:                                             `userd_requests_rejected_total never has reason="TOO_MANY_STREAMS"`,
		`userd_streams_aborted_total{reason="stalled"}`:                                                        `userd_streams_aborted_total never has reason="stalled"`,
		`sum by (method) (grpc_server_started_total)`:                                                          "nothing has the label method",
		`vector(1)`: "no metric is asked for",
	} {
		if got := strings.Join(all.faults(expr), "; "); got != want {
			t.Errorf("%s:\n got %q\nwant %q", expr, got, want)
		}
	}
	for expr, want := range map[string]bool{
		`userd_draining == 1`: true, `sum by (job, instance) (userd_draining) > 0`: true, `sum by (job) (userd_draining) > 0`: false,
		`absent(userd_draining)`: false, `time() - userd_draining > 1 and on (job) up`: true,
		`userd_draining > 0 unless on (job) sum by (job) (userd_draining)`: true,
	} {
		if got := all.labelsLeft(expr)["instance"]; got != want {
			t.Errorf("%s gives an instance: %v, want %v", expr, got, want)
		}
	}
}
