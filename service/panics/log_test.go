package panics_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/yourorg/userservice/service/panics"
)

// A panic of a task is an error with an incident id, and is logged with its stack.
func TestTask(t *testing.T) {
	var log bytes.Buffer
	run := func(do func(context.Context) error) error {
		log.Reset()
		return panics.Task(slog.New(slog.NewTextHandler(&log, nil)), "sweep", do)(t.Context())
	}
	err := run(func(context.Context) error { panic("planted") })
	if err == nil || !strings.HasPrefix(err.Error(), "panic, incident ") {
		t.Errorf("Task() of a panic = %v, want an error with an incident", err)
	}
	for _, want := range []string{"task=sweep", "panic=planted", "log_test.go", strings.TrimPrefix(err.Error(), "panic, incident ")} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log is %q, want %q in it", &log, want)
		}
	}
	failure := errors.New("failed")
	if err := run(func(context.Context) error { return failure }); !errors.Is(err, failure) || log.Len() > 0 {
		t.Errorf("Task() of a failure = %v, logged %q; want the failure and no log line", err, &log)
	}
}
