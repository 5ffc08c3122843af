//go:build interop || deploy

package main_test

import (
	"net"
	"strconv"
	"testing"
)

// freePort returns a free TCP port.
func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0") //nolint:noctx // it is closed at once
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port) //nolint:errcheck // a listener of TCP has such an address
}
