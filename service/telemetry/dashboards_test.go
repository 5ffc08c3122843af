package telemetry_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"go.yaml.in/yaml/v3"

	"github.com/yourorg/userservice/service/intercept"
	"github.com/yourorg/userservice/service/telemetry"
)

// existing are the series that the service can give: their names, each with the
// labels it may have and the values that a label has from the start.
type existing map[string]map[string]map[string]bool

// everything gathers from all collectors that the server registers.
func everything(t *testing.T) existing {
	t.Helper()
	m := telemetry.NewMetrics(telemetry.Build{Version: "v1", Revision: "r"})
	if _, err := intercept.NewMetrics(m.Registry()); err != nil {
		t.Fatal(err)
	}
	if _, err := intercept.NewReasons(m.Registry()); err != nil {
		t.Fatal(err)
	}
	head := func() (int64, time.Time) { return 1, time.Unix(1, 0) }
	stored := func() (int64, time.Time, bool) { return 1, time.Unix(1, 0), true }
	flag := func() bool { return true }
	count := func() int64 { return 1 }
	err := m.Watch(telemetry.Sources{
		StoreHead: stored, FeedHead: head, StoreBytes: count, WALBytes: count, StoreReadOnly: flag,
		ServesReads: flag, ServesWrites: flag, Draining: flag, StalledReaders: count, LateBodies: count,
	})
	if err != nil {
		t.Fatal(err)
	}
	families, err := m.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := make(existing)
	for _, f := range families {
		names := []string{f.GetName()}
		if f.GetType() == dto.MetricType_HISTOGRAM {
			names = []string{f.GetName() + "_bucket", f.GetName() + "_sum", f.GetName() + "_count"}
		}
		for _, name := range names {
			// Prometheus itself adds these.
			labels := map[string]map[string]bool{"job": nil, "instance": nil}
			if strings.HasSuffix(name, "_bucket") {
				labels["le"] = nil
			}
			for _, metric := range f.GetMetric() {
				for _, l := range metric.GetLabel() {
					if labels[l.GetName()] == nil {
						labels[l.GetName()] = make(map[string]bool)
					}
					labels[l.GetName()][l.GetValue()] = true
				}
			}
			all[name] = labels
		}
	}
	return all
}

var (
	quoted     = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
	selection  = regexp.MustCompile(`([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(?:\{([^}]*)\})?`)
	matcher    = regexp.MustCompile(`([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!~|!=|=)\s*("(?:[^"\\]|\\.)*")`)
	grouping   = regexp.MustCompile(`\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)`)
	window     = regexp.MustCompile(`\[[^\]]*\]|\boffset\s+\w+`)
	plainValue = regexp.MustCompile(`^[A-Za-z_|]+$`)
)

// faults returns what an expression asks for that does not exist: metrics, labels of
// metrics, and values of labels that exist from the start.
func (all existing) faults(expr string) (faults []string) {
	grouped := make(map[string]bool)
	for _, g := range grouping.FindAllStringSubmatch(expr, -1) {
		for name := range strings.SplitSeq(g[1], ",") {
			grouped[strings.TrimSpace(name)] = true
		}
	}
	rest := window.ReplaceAllString(grouping.ReplaceAllString(expr, " "), " ")
	used := make(map[string]bool)
	for _, at := range selection.FindAllStringSubmatchIndex(rest, -1) {
		name := rest[at[2]:at[3]]
		call := strings.HasPrefix(strings.TrimSpace(rest[at[3]:]), "(")
		number := at[2] > 0 && strings.ContainsAny(rest[at[2]-1:at[2]], "0123456789.")
		if call || number || inside(rest, at[2]) || slices.Contains([]string{"and", "or", "unless", "bool", "by"}, name) {
			continue
		}
		labels, ok := all[name]
		if !ok && strings.HasPrefix(name, "process_") && runtime.GOOS != "linux" {
			labels, ok = all["go_goroutines"], true // elsewhere the process tells less of itself
		}
		if !ok {
			faults = append(faults, "there is no metric "+name)
			continue
		}
		for label := range labels {
			used[label] = true
		}
		if at[4] < 0 {
			continue
		}
		for _, m := range matcher.FindAllStringSubmatch(rest[at[4]:at[5]], -1) {
			faults = append(faults, faultsOfMatcher(name, labels, m[1], strings.Trim(m[3], `"`))...)
		}
	}
	if len(used) == 0 && len(faults) == 0 {
		faults = append(faults, "no metric is asked for")
	}
	for name := range grouped {
		if !used[name] {
			faults = append(faults, "nothing has the label "+name)
		}
	}
	return faults
}

// inside reports whether a place is within braces or quotes.
func inside(text string, at int) bool {
	before := quoted.ReplaceAllString(text[:at], "")
	return strings.Count(before, "{") > strings.Count(before, "}") || strings.Contains(before, `"`)
}

func faultsOfMatcher(metric string, labels map[string]map[string]bool, label, pattern string) (faults []string) {
	values, ok := labels[label]
	if !ok {
		return []string{metric + " has no label " + label}
	}
	if len(values) == 0 || !plainValue.MatchString(pattern) || label == "status" || label == "code" {
		return nil // variables, and labels whose values come as they occur
	}
	for value := range strings.SplitSeq(pattern, "|") {
		if !values[value] {
			faults = append(faults, fmt.Sprintf("%s never has %s=%q", metric, label, value))
		}
	}
	return faults
}

func TestTheDashboardAsksForWhatExists(t *testing.T) {
	all := everything(t)
	files, err := filepath.Glob("dashboards/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("dashboards: %v, %v", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		type panel struct {
			ID      int
			Type    string
			Title   string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr, RefID string }
		}
		var dashboard struct {
			Title, UID string
			Panels     []panel
			Templating struct {
				List []struct{ Name, Definition string }
			}
		}
		if err := json.Unmarshal(text, &dashboard); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		ids, exprs := make(map[int]bool), 0
		for _, p := range dashboard.Panels {
			if ids[p.ID] || p.Title == "" || p.GridPos.X+p.GridPos.W > 24 {
				t.Errorf("%s: panel %d (%s) has no place or id of its own", file, p.ID, p.Title)
			}
			ids[p.ID] = true
			if p.Type != "row" && len(p.Targets) == 0 {
				t.Errorf("%s: %s shows nothing", file, p.Title)
			}
			for _, target := range p.Targets {
				exprs++
				for _, fault := range all.faults(target.Expr) {
					t.Errorf("%s: %s: %s", file, p.Title, fault)
				}
			}
		}
		for _, v := range dashboard.Templating.List {
			inner, isQuery := strings.CutPrefix(v.Definition, "label_values(")
			if !isQuery {
				continue
			}
			metric, label, _ := strings.Cut(strings.TrimSuffix(inner, ")"), ", ")
			if faults := append(all.faults(metric), all.faults("sum by ("+label+") ("+metric+")")...); len(faults) > 0 {
				t.Errorf("%s: variable %s: %v", file, v.Name, faults)
			}
		}
		if dashboard.Title == "" || dashboard.UID == "" || exprs == 0 {
			t.Errorf("%s is no dashboard", file)
		}
	}
}

func TestTheAlertsAskForWhatExists(t *testing.T) {
	all := everything(t)
	files, err := filepath.Glob("alerts/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("alerts: %v, %v", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var rules struct {
			Groups []struct {
				Name  string
				Rules []struct {
					Alert, Expr         string
					For                 time.Duration
					Labels, Annotations map[string]string
				}
			}
		}
		decoder := yaml.NewDecoder(bytes.NewReader(text))
		decoder.KnownFields(true) // a misspelt "for" would be no wait at all
		if err := decoder.Decode(&rules); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		names := make(map[string]bool)
		for _, group := range rules.Groups {
			for _, rule := range group.Rules {
				if rule.Alert == "" || names[rule.Alert] {
					t.Errorf("%s: %q has no name of its own", file, rule.Alert)
				}
				names[rule.Alert] = true
				for _, fault := range all.faults(rule.Expr) {
					t.Errorf("%s: %s: %s", file, rule.Alert, fault)
				}
				if !slices.Contains([]string{"page", "ticket"}, rule.Labels["severity"]) ||
					rule.Annotations["summary"] == "" || rule.Annotations["description"] == "" {
					t.Errorf("%s: %s: severity, summary or description is missing", file, rule.Alert)
				}
			}
		}
		if len(names) == 0 {
			t.Errorf("%s has no rules", file)
		}
	}
}

// TestFaultsAreFound guards the two tests above: a check that finds nothing would
// pass too.
func TestFaultsAreFound(t *testing.T) {
	all := everything(t)
	for expr, want := range map[string]string{
		`userd_log_position`: "",
		`sum by (grpc_code) (rate(grpc_server_handled_total{job=~"$job",grpc_code=~"OK|NotFound"}[5m])) > 1e9`: "",
		`histogram_quantile(0.9, sum by (le) (rate(userd_commit_sync_seconds_bucket[$__rate_interval])))`:      "",
		`time() - userd_log_last_commit_timestamp_seconds > 3 and on (job) userd_draining == 0`:                "",
		`rate(grpc_server_handled[5m])`:                                "there is no metric grpc_server_handled",
		`userd_commit_sync_seconds`:                                    "there is no metric userd_commit_sync_seconds",
		`userd_draining and user_draining`:                             "there is no metric user_draining",
		`grpc_server_handled_total{code="OK"}`:                         "grpc_server_handled_total has no label code",
		`grpc_server_handled_total{job="userd",grpc_code="NOT_FOUND"}`: `grpc_server_handled_total never has grpc_code="NOT_FOUND"`,
		`userd_cut_total{reason="stalled"}`:                            `userd_cut_total never has reason="stalled"`,
		`sum by (method) (grpc_server_started_total)`:                  "nothing has the label method",
		`vector(1)`: "no metric is asked for",
	} {
		if got := strings.Join(all.faults(expr), "; "); got != want {
			t.Errorf("%s:\n got %q\nwant %q", expr, got, want)
		}
	}
}
