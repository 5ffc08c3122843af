package main

import (
	"context"
	goversion "go/version"
	"log/slog"
	"strings"
)

// fixedBy returns the release of Go that has the HTTP/2 fixes of October 2026 and that
// the runtime is older than, or "" if the runtime has them. A development build is taken
// as fixed.
func fixedBy(runtimeVersion string) string {
	release := runtimeVersion
	if i := strings.IndexAny(release, " -"); i > 0 { // experiments and vendors' marks
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

// warnOfRuntime logs a warning if the program was built with a vulnerable runtime.
func warnOfRuntime(ctx context.Context, log *slog.Logger, runtimeVersion string) {
	if fixed := fixedBy(runtimeVersion); fixed != "" {
		log.LogAttrs(ctx, slog.LevelWarn, "vulnerable Go runtime: a client can crash the server over HTTP/2; rebuild with GOTOOLCHAIN=auto",
			slog.String("version", runtimeVersion), slog.String("fixed_in", fixed), slog.String("vulnerability", "CVE-2026-97032"))
	}
}
