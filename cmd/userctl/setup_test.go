package main

import (
	"bytes"
	"context"
	"io"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/yourorg/userservice/service/servertest"
)

// result is the result of a command.
type result struct {
	out, err string
	status   int
}

// userctl runs a command against a server without a terminal.
func userctl(t *testing.T, s *servertest.Server, args ...string) result {
	t.Helper()
	return userctlOn(t, s, console{in: strings.NewReader("")}, args...)
}

// userctlOn runs a command with an input and terminals.
func userctlOn(t *testing.T, s *servertest.Server, to console, args ...string) result {
	t.Helper()
	t.Setenv("USERCTL_SERVER", s.URL())
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out, stderr bytes.Buffer
	to.out, to.err = &out, &stderr
	to.exit = func(status int) { t.Errorf("exit(%d) was called", status) }
	status := run(ctx, args, to)
	return result{mask(out.String()), mask(stderr.String()), status}
}

// must runs a command that must succeed, and returns its output without masks.
func must(t *testing.T, s *servertest.Server, args ...string) string {
	t.Helper()
	t.Setenv("USERCTL_SERVER", s.URL())
	var out, stderr bytes.Buffer
	if status := run(t.Context(), args, console{in: strings.NewReader(""), out: &out, err: &stderr}); status != 0 {
		t.Fatalf("userctl %s: status %d, want 0: %s", strings.Join(args, " "), status, &stderr)
	}
	return out.String()
}

// Values that differ between runs.
var (
	userIDs   = regexp.MustCompile(`\b[0-9]{15,}\b`)
	times     = regexp.MustCompile(`\b20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9:]{8}Z`)
	fractions = regexp.MustCompile(`\b20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\.[0-9]+Z`)
	etags     = regexp.MustCompile(`\b[0-9]+-[0-9a-z]{10,}\b`)
	uuids     = regexp.MustCompile(`\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b`)
	urls      = regexp.MustCompile(`http://127\.0\.0\.1:[0-9]+`)
)

// mask replaces the values that differ between runs, those of columns by ones of the same width.
func mask(text string) string {
	wide := func(name string) func(string) string {
		return func(value string) string { return "<" + name + strings.Repeat("-", len(value)-len(name)-2) + ">" }
	}
	text = fractions.ReplaceAllString(text, "<TIME>")
	text = times.ReplaceAllStringFunc(text, wide("TIME"))
	text = uuids.ReplaceAllString(text, "<UUID>")
	text = userIDs.ReplaceAllStringFunc(text, wide("USER-ID"))
	text = etags.ReplaceAllString(text, "<ETAG>")
	return urls.ReplaceAllString(text, "<SERVER>")
}

// lines is an output of a command that runs, by lines.
type lines struct {
	mu      sync.Mutex
	text    strings.Builder
	changed chan struct{}
}

func newLines() *lines { return &lines{changed: make(chan struct{}, 1)} }

// Write implements io.Writer.
func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(p)
	select {
	case l.changed <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// wait waits until the output contains a text.
func (l *lines) wait(t *testing.T, text string) {
	t.Helper()
	l.waitFor(t, func(output string) bool { return strings.Contains(output, text) })
}

// waitFor waits until the output satisfies a condition.
func (l *lines) waitFor(t *testing.T, complete func(string) bool) {
	t.Helper()
	timeout := time.After(time.Minute)
	for !complete(l.String()) {
		select {
		case <-l.changed:
		case <-timeout:
			t.Fatalf("the output is incomplete: %q", l.String())
		}
	}
}

// started is a command that runs until it is interrupted.
type started struct {
	out, err  *lines
	interrupt func() result
	wait      func() result
}

// start starts a command.
func start(t *testing.T, s *servertest.Server, args ...string) started {
	t.Helper()
	return startOn(t, s, strings.NewReader(""), args...)
}

// startOn starts a command with an input.
func startOn(t *testing.T, s *servertest.Server, in io.Reader, args ...string) started {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	c := started{out: newLines(), err: newLines()}
	done := make(chan int, 1)
	args = append([]string{"--server", s.URL()}, args...)
	go func() { done <- run(ctx, args, console{in: in, out: c.out, err: c.err}) }()
	c.wait = func() result {
		status := <-done
		return result{mask(c.out.String()), mask(c.err.String()), status}
	}
	c.interrupt = func() result {
		cancel()
		return c.wait()
	}
	return c
}
