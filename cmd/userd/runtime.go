package main

import (
	"context"
	goversion "go/version"
	"log/slog"
	"strings"
)

// fixedIn returns the Go release with the HTTP/2 fixes of October 2026 if the runtime is
// older, else "". A development build counts as fixed.
func fixedIn(runtimeVersion string) string {
	release := runtimeVersion
	if i := strings.IndexAny(release, " -"); i > 0 { // suffixes of experiments and vendors
		release = release[:i]
	}
	fixed := "go1.27.4"
	if goversion.Lang(release) == "go1.26" {
		fixed = "go1.26.11"
	}
	if !goversion.IsValid(release) || goversion.Compare(release, fixed) >= 0 {
		return ""
	}
	return fixed
}

// warnVulnerableRuntime logs a warning if the program was built with a vulnerable Go release.
func warnVulnerableRuntime(ctx context.Context, log *slog.Logger, runtimeVersion string) {
	if fixed := fixedIn(runtimeVersion); fixed != "" {
		log.LogAttrs(ctx, slog.LevelWarn, "vulnerable Go runtime: a client can crash the server over HTTP/2; rebuild with GOTOOLCHAIN=auto",
			slog.String("version", runtimeVersion), slog.String("fixed_in", fixed), slog.String("vulnerability", "CVE-2026-97032"))
	}
}
