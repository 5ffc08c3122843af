package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"testing"
)

func TestReserveTakesNoMemory(t *testing.T) {
	before := residentPages(t)
	reserve := reserveHeap()
	grown := (residentPages(t) - before) * int64(os.Getpagesize())
	if len(reserve) != heapReserve || grown > heapReserve/8 {
		t.Errorf("a reserve of %d bytes takes %d", len(reserve), grown)
	}
	runtime.KeepAlive(reserve)
}

func TestNoReserveWhereMemoryIsScarce(t *testing.T) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(256 << 20))
	if reserve := reserveHeap(); reserve != nil {
		t.Errorf("got %d bytes", len(reserve))
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
