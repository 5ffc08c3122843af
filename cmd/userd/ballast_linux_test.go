package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"testing"
)

func TestBallastUsesNoPhysicalMemory(t *testing.T) {
	before := residentPages(t)
	ballast := newBallast()
	grown := (residentPages(t) - before) * int64(os.Getpagesize())
	if len(ballast) != ballastBytes || grown > ballastBytes/8 {
		t.Errorf("ballast of %d bytes: resident memory grew by %d bytes", len(ballast), grown)
	}
	runtime.KeepAlive(ballast)
}

func TestNoBallastWithLowMemoryLimit(t *testing.T) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(256 << 20))
	if ballast := newBallast(); ballast != nil {
		t.Errorf("newBallast = %d bytes, want nil", len(ballast))
	}
}

func residentPages(t *testing.T) (pages int64) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscanf(string(text), "%d %d", new(int64), &pages); err != nil {
		t.Fatal(err)
	}
	return pages
}
