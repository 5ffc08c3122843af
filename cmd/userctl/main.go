// Command userctl is the command line of the user service. userctl --help lists its commands
// and exit statuses.
//
// The first SIGINT or SIGTERM ends the command, the second kills the process.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"
)

func main() {
	ctx, restore := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// After the first signal, restore the default action for the second one.
	context.AfterFunc(ctx, restore)
	width, _, _ := term.GetSize(int(os.Stdout.Fd())) // 0 if it is no terminal
	isTerminal := func(file *os.File) bool { return term.IsTerminal(int(file.Fd())) }
	os.Exit(run(ctx, os.Args[1:], console{
		in: os.Stdin, out: os.Stdout, err: os.Stderr, exit: os.Exit,
		inTerminal: isTerminal(os.Stdin), outTerminal: isTerminal(os.Stdout), errTerminal: isTerminal(os.Stderr), width: width,
	}))
}
