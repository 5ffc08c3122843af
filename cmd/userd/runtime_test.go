package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

func TestVulnerableRuntimeIsReported(t *testing.T) {
	for version, fixed := range map[string]string{
		"go1.25.12":                     "go1.27.4",
		"go1.26":                        "go1.26.11",
		"go1.26.8":                      "go1.26.11",
		"go1.26.10":                     "go1.26.11",
		"go1.26.11":                     "",
		"go1.26.12":                     "",
		"go1.27rc2":                     "go1.27.4",
		"go1.27.3":                      "go1.27.4",
		"go1.27.4":                      "",
		"go1.27.10":                     "",
		"go1.28":                        "",
		"go1.28rc1":                     "",
		"devel go1.28-2c1d4f3":          "",
		"go1.26.8 X:nocoverageredesign": "go1.26.11",
	} {
		if got := fixedIn(version); got != fixed {
			t.Errorf("fixedIn(%q) = %q, want %q", version, got, fixed)
		}
		var text bytes.Buffer
		warnVulnerableRuntime(t.Context(), slog.New(slog.NewTextHandler(&text, nil)), version)
		if got, want := strings.Contains(text.String(), "vulnerable Go runtime"), fixed != ""; got != want {
			t.Errorf("warnVulnerableRuntime(%q) logged a warning: %v, want %v; log %q", version, got, want, text.String())
		}
	}
}
