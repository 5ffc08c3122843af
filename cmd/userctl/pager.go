package main

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

// pager is a writer to the pager of the user, which starts with the first output.
type pager struct {
	console

	command *exec.Cmd // nil: not started
	pipe    io.WriteCloser
}

// newPager returns a pager, or nil if the output is not shown in one.
func newPager(to console, disabled bool) *pager {
	if disabled || !to.outTerminal || pagerCommand() == "" {
		return nil
	}
	return &pager{console: to}
}

// pagerCommand returns the shell command of PAGER, less if it is unset, or "" for none.
func pagerCommand() string {
	command, ok := os.LookupEnv("PAGER")
	if !ok {
		if _, err := exec.LookPath("less"); err == nil {
			command = "less"
		}
	}
	if command == "cat" {
		return ""
	}
	return command
}

// Write implements io.Writer.
func (p *pager) Write(text []byte) (int, error) {
	if p.command == nil {
		if err := p.start(); err != nil {
			return 0, err
		}
	}
	return p.pipe.Write(text)
}

func (p *pager) start() (err error) {
	command := exec.Command("sh", "-c", pagerCommand()) //nolint:gosec,noctx // the user chooses the program, and ends it
	if command.Env = os.Environ(); os.Getenv("LESS") == "" {
		command.Env = append(command.Env, "LESS=FRX") // quit if one screen, keep colors, keep the screen
	}
	command.Stdout, command.Stderr = p.out, p.err
	if p.pipe, err = command.StdinPipe(); err != nil {
		return err
	}
	if err := command.Start(); err != nil {
		return err
	}
	p.command = command
	signal.Ignore(os.Interrupt) // Ctrl-C is for the pager
	return nil
}

// close waits until the user ends the pager. It returns the error of the command, except that the pager has ended
// before it.
func (p *pager) close(err error) error {
	if p.command == nil {
		return err
	}
	_ = p.pipe.Close()
	_ = p.command.Wait() // its exit status does not matter
	if errors.Is(err, syscall.EPIPE) {
		return nil
	}
	return err
}
