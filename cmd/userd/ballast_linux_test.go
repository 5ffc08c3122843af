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
	if len(ballast) != maxBallast || grown > maxBallast/16 {
		t.Errorf("ballast of %d bytes: resident memory grew by %d bytes", len(ballast), grown)
	}
	runtime.KeepAlive(ballast)
}

func TestBallastIsPartOfMemoryLimit(t *testing.T) {
	for limit, want := range map[int64]int{256 << 20: 0, 512<<20 - 1: 0, 512 << 20: minBallast, 1 << 30: 32 << 20, 1 << 40: maxBallast} {
		before := debug.SetMemoryLimit(limit)
		if got := len(newBallast()); got != want {
			t.Errorf("with a limit of %d: ballast of %d bytes, want %d", limit, got, want)
		}
		debug.SetMemoryLimit(before)
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
