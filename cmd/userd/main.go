// Command userd serves user.v1.UserService. Without arguments it serves on
// 127.0.0.1:8080 from userservice.db in the current directory; --help lists all flags.
//
// The exit status is 0 after a graceful shutdown, also during the start, 1 after a failure and 2 after a usage error.
// The first SIGINT, SIGTERM or SIGHUP starts a graceful shutdown, the second kills the
// process. SIGHUP is ignored if it was ignored at start, as under nohup.
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
	// After the first signal, restore the default action for the second one.
	context.AfterFunc(ctx, restore)
	os.Exit(run(ctx, os.Args[1:], console{name: os.Args[0], out: os.Stdout, err: os.Stderr, exit: os.Exit}))
}
