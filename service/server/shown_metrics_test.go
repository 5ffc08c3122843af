package server_test

import (
	"fmt"
	"net/http"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/auth"
	"github.com/yourorg/userservice/service/servertest"
)

// existing maps the names of the series to their labels and the values of each label; no values if they
// are not known beforehand.
type existing map[string]map[string]map[string]bool

var (
	sample     = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? \S+$`)
	quoted     = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
	selection  = regexp.MustCompile(`([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(?:\{([^}]*)\})?`)
	matcher    = regexp.MustCompile(`([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!~|!=|=)\s*("(?:[^"\\]|\\.)*")`)
	grouping   = regexp.MustCompile(`\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)`)
	window     = regexp.MustCompile(`\[[^\]]*\]|\boffset\s+\w+`)
	plainValue = regexp.MustCompile(`^[A-Za-z0-9_|]+$`)
	httpCode   = regexp.MustCompile(`^([1-5][0-9][0-9]|grpc_([1-9]|1[0-6])|other)$`)
)

// everything returns the series of a server after calls of all kinds.
func everything(t *testing.T) existing {
	t.Helper()
	g := startGuarded(t, servertest.Parallel(), servertest.Admin())
	client := g.grpc(g.token(t, "ann", time.Hour, auth.UsersWrite, auth.UsersRead))
	if _, err := client.CreateUser(t.Context(), &userv1.CreateUserRequest{Username: "ada", Email: "ada@example.com"}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.GetUser(t.Context(), &userv1.GetUserRequest{UserId: 42}); connect.CodeOf(err) != connect.CodeNotFound {
		t.Fatal(err)
	}
	status, text := fetch(t, g.AdminURL()+"/metrics")
	if status != http.StatusOK {
		t.Fatalf("got %d", status)
	}
	all := make(existing)
	for line := range strings.Lines(text) {
		if found := sample.FindStringSubmatch(strings.TrimSpace(line)); found != nil {
			all.add(found[1], found[2])
		}
	}
	all.complete()
	return all
}

// add adds a series. Prometheus adds the labels job and instance.
func (all existing) add(name, labels string) {
	if all[name] == nil {
		all[name] = map[string]map[string]bool{"job": nil, "instance": nil}
	}
	for _, m := range matcher.FindAllStringSubmatch(labels, -1) {
		if all[name][m[1]] == nil {
			all[name][m[1]] = make(map[string]bool)
		}
		all[name][m[1]][strings.Trim(m[3], `"`)] = true
	}
}

// complete adds series that appear later: further codes, and those of Prometheus itself.
func (all existing) complete() {
	codes := all["grpc_server_handled_total"]["grpc_code"]
	for _, part := range []string{"_bucket", "_sum", "_count"} {
		all["grpc_request_duration_seconds"+part]["status"] = codes
	}
	for name, labels := range all {
		if strings.HasPrefix(name, "userd_build_") {
			labels["version"], labels["revision"], labels["goversion"] = nil, nil, nil
		}
		if strings.HasSuffix(name, "_bucket") {
			labels["le"] = nil
		}
	}
	all["up"] = map[string]map[string]bool{"job": nil, "instance": nil}
}

// asked is a metric in an expression.
type asked struct {
	name     string
	at       int // position in the expression without groupings and windows
	matchers [][]string
}

// without matches parts of an expression that name no metric.
func without(expr string) string {
	return window.ReplaceAllString(grouping.ReplaceAllString(expr, " "), " ")
}

// asksFor returns the metrics in an expression. The target "alerts" of the Makefile checks the syntax.
func asksFor(expr string) (found []asked) {
	rest := without(expr)
	for _, at := range selection.FindAllStringSubmatchIndex(rest, -1) {
		name := rest[at[2]:at[3]]
		call := strings.HasPrefix(strings.TrimSpace(rest[at[3]:]), "(")
		number := at[2] > 0 && strings.ContainsAny(rest[at[2]-1:at[2]], "0123456789.")
		if call || number || inside(rest, at[2]) || slices.Contains([]string{"and", "or", "unless", "bool", "by"}, name) {
			continue
		}
		a := asked{name: name, at: at[2]}
		if at[4] >= 0 {
			a.matchers = matcher.FindAllStringSubmatch(rest[at[4]:at[5]], -1)
		}
		found = append(found, a)
	}
	return found
}

// inside reports whether a position is within braces or quotes.
func inside(text string, at int) bool {
	before := quoted.ReplaceAllString(text[:at], "")
	return strings.Count(before, "{") > strings.Count(before, "}") || strings.Contains(before, `"`)
}

// labelsOf returns the labels of a metric. Some process metrics exist only on Linux.
func (all existing) labelsOf(name string) (map[string]map[string]bool, bool) {
	labels, ok := all[name]
	if !ok && strings.HasPrefix(name, "process_") && runtime.GOOS != "linux" {
		return all["go_goroutines"], true
	}
	return labels, ok
}

// faults returns the metrics, labels and label values in an expression that do not exist.
func (all existing) faults(expr string) (faults []string) {
	used := make(map[string]bool)
	for _, a := range asksFor(expr) {
		labels, ok := all.labelsOf(a.name)
		if !ok {
			faults = append(faults, "there is no metric "+a.name)
			continue
		}
		for label := range labels {
			used[label] = true
		}
		for _, m := range a.matchers {
			faults = append(faults, faultsOfMatcher(a.name, labels, m[1], strings.Trim(m[3], `"`))...)
		}
	}
	if len(used) == 0 && len(faults) == 0 {
		faults = append(faults, "no metric is asked for")
	}
	for _, g := range grouping.FindAllStringSubmatch(expr, -1) {
		for name := range strings.SplitSeq(g[1], ",") {
			if name = strings.TrimSpace(name); !used[name] {
				faults = append(faults, "nothing has the label "+name)
			}
		}
	}
	return faults
}

func faultsOfMatcher(metric string, labels map[string]map[string]bool, label, pattern string) (faults []string) {
	values, ok := labels[label]
	if !ok {
		return []string{metric + " has no label " + label}
	}
	if len(values) == 0 || !plainValue.MatchString(pattern) {
		return nil // values that are not known beforehand, and variables
	}
	for value := range strings.SplitSeq(pattern, "|") {
		known := values[value] || label == "code" && strings.HasPrefix(metric, "userd_http_") && httpCode.MatchString(value)
		if !known {
			faults = append(faults, fmt.Sprintf("%s never has %s=%q", metric, label, value))
		}
	}
	return faults
}

// labelsLeft returns the labels of the result of an expression: those of its grouping, else those of its
// first metric.
func (all existing) labelsLeft(expr string) map[string]bool {
	left := make(map[string]bool)
	if strings.HasPrefix(expr, "absent(") {
		return left
	}
	metrics := asksFor(expr)
	if len(metrics) == 0 {
		return left
	}
	before, _, _ := strings.Cut(expr, metrics[0].name)
	if by := grouping.FindAllStringSubmatch(before, -1); by != nil {
		for name := range strings.SplitSeq(by[len(by)-1][1], ",") {
			left[strings.TrimSpace(name)] = true
		}
	} else {
		labels, _ := all.labelsOf(metrics[0].name)
		for name := range labels {
			left[name] = true
		}
	}
	if strings.HasPrefix(expr, "histogram_quantile(") {
		delete(left, "le")
	}
	return left
}
