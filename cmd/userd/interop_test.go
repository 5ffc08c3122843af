//go:build interop

package main_test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// interopTools is the directory of the third-party clients, see `make interop`.
const interopTools = "../../.tools/interop"

// suite is the cases of a client for a target, run by one process.
type suite struct {
	client []string // command
	at     string   // target, see newTargets
	cases  []string
	waits  bool     // mostly idle, not limited by turns
	env    []string // additional environment variables
}

func (s suite) name() string {
	script := filepath.Base(s.client[len(s.client)-1])
	return strings.TrimSuffix(strings.TrimSuffix(script, ".mjs"), ".py")
}

var (
	grpcio      = []string{"/usr/bin/python3", "clients/grpcio.py"}
	grpcJS      = []string{"node", "clients/grpc-js.mjs"}
	connectNode = []string{"node", "clients/connect-node.mjs"}
	browser     = []string{"node", "clients/browser.mjs"}
)

// suites are the cases of external clients.
func suites() []suite {
	const http1 = "USERD_HTTP=1.1"
	return []suite{
		{client: grpcio, at: "open", cases: []string{
			"kinds", "missing-users", "idle-streams", "unknown-method", "many-violations", "too-large", "health", "wrong-host",
		}},
		{client: grpcio, at: "open", cases: []string{"keepalive"}, waits: true},
		{client: grpcio, at: "token", cases: []string{"kinds", "no-token", "unknown-method"}},
		{client: grpcio, at: "limited", cases: []string{"rate-limited"}},
		{client: grpcio, at: "nginx", cases: []string{"kinds", "no-token", "unknown-method", "many-violations", "too-large"}},
		{client: grpcio, at: "nginx", cases: []string{"idle-behind-proxy"}, waits: true},
		{client: grpcio, at: "nginx to limited", cases: []string{"rate-limited"}},
		{client: grpcio, at: "nginx to a socket", cases: []string{"kinds"}},
		{client: grpcio, at: "haproxy", cases: []string{"kinds", "no-token", "unknown-method", "many-violations", "too-large"}},
		{client: grpcio, at: "haproxy", cases: []string{"idle-behind-proxy"}, waits: true},
		{client: grpcio, at: "caddy", cases: []string{"kinds", "no-token", "unknown-method", "many-violations", "too-large"}},
		{client: grpcio, at: "Go's ReverseProxy", cases: []string{"kinds", "no-token"}},

		{client: grpcJS, at: "open", cases: []string{"kinds", "unknown-method"}},
		{client: grpcJS, at: "open", cases: []string{"keepalive"}, waits: true},
		{client: grpcJS, at: "nginx", cases: []string{"kinds", "no-token", "unknown-method"}},
		{client: grpcJS, at: "haproxy", cases: []string{"kinds", "no-token", "unknown-method"}},
		{client: grpcJS, at: "caddy", cases: []string{"kinds", "no-token", "unknown-method"}},

		{client: connectNode, at: "open", cases: []string{"kinds", "live"}},
		{client: connectNode, at: "token", cases: []string{"no-token"}},
		{client: connectNode, at: "nginx", cases: []string{"kinds", "live", "no-token"}, env: []string{"USERD_HTTP1_UPSTREAM="}},
		{client: connectNode, at: "nginx", cases: []string{"idle"}, waits: true},
		{client: connectNode, at: "nginx with its defaults", cases: []string{"kinds", "live"}, env: []string{http1}},
		{client: connectNode, at: "nginx with its defaults", cases: []string{"idle"}, waits: true, env: []string{http1}},
		{client: connectNode, at: "haproxy", cases: []string{"kinds", "live", "no-token"}},
		{client: connectNode, at: "haproxy", cases: []string{"idle"}, waits: true},
		{client: connectNode, at: "caddy", cases: []string{"kinds", "live", "no-token"}},
		{client: connectNode, at: "Go's ReverseProxy", cases: []string{"kinds", "live"}},

		{client: browser, at: "open", cases: []string{
			"connect-kinds", "connect-error-item", "google-kinds", "native-resume", "native-foreign-epoch",
			"polyfill-resume", "polyfill-foreign-epoch", "rest",
		}},
		{client: browser, at: "token", cases: []string{"connect-no-token", "google-no-token", "rest"}},
		{client: browser, at: "nginx", cases: []string{"connect-kinds", "google-kinds", "connect-no-token", "google-no-token"}},
		{client: browser, at: "nginx with its defaults", cases: []string{"connect-kinds", "google-kinds"}},
		{client: browser, at: "nginx with its defaults", cases: []string{"native-idle", "polyfill-idle"}, waits: true},
		{client: browser, at: "haproxy", cases: []string{"connect-kinds", "google-kinds"}},
		{client: browser, at: "caddy", cases: []string{"connect-kinds", "google-kinds"}},
	}
}

// emptyResponses are cases for a target that responds to each request with an empty success. They
// must fail.
func emptyResponses() []suite {
	var all []suite
	for _, client := range [][]string{grpcio, grpcJS, connectNode, browser} {
		name := "kinds"
		if client[1] == browser[1] {
			name = "connect-kinds"
		}
		all = append(all, suite{client: client, at: "empty responses", cases: []string{name}})
	}
	return all
}

// failureLines is the number of lines shown of a failure.
const failureLines = 10

// report collects and prints results.
type report struct {
	mu             sync.Mutex
	passed, failed int
}

func (r *report) add(client, name, at string, took time.Duration, failure string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	where := fmt.Sprintf("%s: %s (%s, %.1fs)", client, name, at, took.Seconds())
	if failure == "" {
		r.passed++
		fmt.Println("pass", where)
		return
	}
	r.failed++
	lines := strings.Split(strings.TrimSpace(failure), "\n")
	if len(lines) > failureLines { // keep the first and the last lines
		lines = slices.Concat(lines[:failureLines/2], []string{"…"}, lines[len(lines)-failureLines/2:])
	}
	fmt.Printf("FAIL %s\n     %s\n", where, strings.Join(lines, "\n     "))
}

// TestInterop tests userd with third-party clients, directly and through proxies with the
// configurations of the README. `make interop` installs them; a missing one fails the test.
// CASE selects cases by a part of their line.
func TestInterop(t *testing.T) {
	began := time.Now()
	targets := newTargets(t)
	results := new(report)
	turns := make(chan struct{}, 2) // limits concurrency
	pick := os.Getenv("CASE")
	var running sync.WaitGroup
	run := func(waits bool, do func()) {
		running.Go(func() {
			if !waits {
				turns <- struct{}{}
				defer func() { <-turns }()
			}
			do()
		})
	}
	picked := func(client, name, at string) bool {
		return strings.Contains(fmt.Sprintf("%s: %s (%s", client, name, at), pick)
	}
	for _, s := range suites() {
		var cases []string
		for _, name := range s.cases {
			if picked(s.name(), name, s.at) {
				cases = append(cases, name)
			}
		}
		if s.cases = cases; len(cases) > 0 {
			run(s.waits, func() { s.run(targets[s.at], results.add) })
		}
	}
	for _, s := range emptyResponses() {
		if picked(s.name(), s.cases[0], s.at) {
			run(false, func() { s.run(targets[s.at], inverted(results)) })
		}
	}
	for _, c := range ownCases() {
		if picked(c.client, c.name, c.at) {
			run(c.waits, func() {
				began := time.Now()
				failure := ""
				if err := c.run(targets[c.at]); err != nil {
					failure = err.Error()
				}
				results.add(c.client, c.name, c.at, time.Since(began), failure)
			})
		}
	}
	running.Wait()
	fmt.Printf("%d passed, %d failed (%.0f s)\n", results.passed, results.failed, time.Since(began).Seconds())
	if results.failed > 0 || results.passed == 0 {
		t.Fail()
	}
}

// inverted reports success for a case that failed.
func inverted(r *report) func(client, name, at string, took time.Duration, failure string) {
	return func(client, name, at string, took time.Duration, failure string) {
		wrong := ""
		switch {
		case failure == "":
			wrong = "passed although all responses were empty"
		case strings.Contains(failure, notReported):
			wrong = failure // failed for another reason
		}
		r.add(client, name, at, took, wrong)
	}
}

// outcome is the result of a case, a line of JSON.
type outcome struct {
	Case    string
	Seconds float64
	Error   *string
}

const notReported = "the client did not report this case"

// run runs the cases of the suite and reports them.
func (s suite) run(at front, add func(client, name, at string, took time.Duration, failure string)) {
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	variables, done := at.environment()
	defer done()
	argv := append(s.client[1:len(s.client):len(s.client)], s.cases...)
	cmd := exec.CommandContext(ctx, s.client[0], argv...)
	cmd.Dir = interopTools
	cmd.Env = append(append(os.Environ(), variables...), s.env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = errors.New("it did not end in time")
	}
	reported := make(map[string]bool)
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		var o outcome
		if json.Unmarshal(lines.Bytes(), &o) != nil || o.Case == "" {
			continue
		}
		reported[o.Case] = true
		failure := ""
		if o.Error != nil {
			failure = cmp.Or(*o.Error, "no reason given")
		}
		add(s.name(), o.Case, s.at, time.Duration(o.Seconds*float64(time.Second)), failure)
	}
	for _, name := range s.cases {
		if !reported[name] {
			add(s.name(), name, s.at, 0, fmt.Sprintf("%s: %v\n%s", notReported, err, last(stderr.Bytes(), 2000)))
		}
	}
}

func last(text []byte, n int) []byte { return text[max(0, len(text)-n):] }
