// Command userd serves user.v1.UserService. Without arguments it serves on
// 127.0.0.1:8080 from userservice.db in the current folder; --help lists the rest.
//
// It ends with status 0 after a stop in good order, 1 after a failure, and 2 when it
// was called in a way that it does not understand. A first SIGINT, SIGTERM or SIGHUP asks
// it to stop, a second ends it at once. SIGHUP stays ignored where it was, as under nohup.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		signals = append(signals, syscall.SIGHUP)
	}
	ctx, restore := signal.NotifyContext(context.Background(), signals...)
	// Once the first signal has come, the second finds nobody who listens, and does
	// what it does to any program.
	context.AfterFunc(ctx, restore)
	os.Exit(run(ctx, os.Args[1:], console{name: os.Args[0], out: os.Stdout, err: os.Stderr, exit: os.Exit}))
}
