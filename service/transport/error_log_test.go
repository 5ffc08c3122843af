package transport

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// The rate of lines is limited, and the number of skipped lines is logged.
func TestErrorLogRateLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		errors := slog.NewLogLogger(newLimitedHandler(slog.NewTextHandler(&out, nil)), slog.LevelWarn)
		for range 100 {
			errors.Print("http2: something")
		}
		time.Sleep(time.Second)
		errors.Print("http2: something else")
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(lines) != linesPerSecond+1 {
			t.Fatalf("got %d lines", len(lines))
		}
		if !strings.HasSuffix(lines[0], `level=WARN msg="http2: something"`) ||
			!strings.HasSuffix(lines[linesPerSecond], `level=WARN msg="http2: something else" skipped=95`) {
			t.Errorf("got %s", out.String())
		}
	})
}
