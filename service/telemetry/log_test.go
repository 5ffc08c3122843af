package telemetry_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/yourorg/userservice/service/telemetry"
)

func TestDefaultFormat(t *testing.T) {
	for format, want := range map[string]string{
		"":     `"msg":"hello"`, // a buffer is not a terminal
		"json": `"msg":"hello"`,
		"text": `msg=hello`,
	} {
		var out bytes.Buffer
		log, err := telemetry.NewLogger(&out, "info", format)
		if err != nil {
			t.Fatal(err)
		}
		log.Debug("not this")
		log.Info("hello")
		if got := out.String(); !strings.Contains(got, want) || strings.Contains(got, "not this") {
			t.Errorf("NewLogger with format %q wrote %s", format, got)
		}
	}
}

func TestInvalidLogOptions(t *testing.T) {
	if _, err := telemetry.NewLogger(nil, "loud", ""); err == nil || !strings.Contains(err.Error(), "expected debug") {
		t.Errorf("NewLogger with level loud = %v", err)
	}
	if _, err := telemetry.NewLogger(nil, "info", "xml"); err == nil || !strings.Contains(err.Error(), "expected text or json") {
		t.Errorf("NewLogger with format xml = %v", err)
	}
}

func TestJSONDurationsAreInSeconds(t *testing.T) {
	var out bytes.Buffer
	log, err := telemetry.NewLogger(&out, "info", "json")
	if err != nil {
		t.Fatal(err)
	}
	log.Info("took", "duration", 1500*time.Millisecond)
	if !strings.Contains(out.String(), `"duration":1.5`) {
		t.Errorf("log = %s", out.String())
	}
}
