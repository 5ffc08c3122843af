package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"time"

	"google.golang.org/protobuf/proto"
)

// following defines the flags of commands that follow the log.
type following struct {
	After int64  `placeholder:"POSITION" help:"Start with the events after this position."`
	Exec  string `placeholder:"COMMAND" help:"Run a shell command for each event, with its JSON on standard input. If it fails, the stream ends before the next event."`
	State string `placeholder:"FILE" help:"File with the position, where the next run continues. After a crash, the events of the last second may be repeated."`
}

// saveInterval is the minimum time between two saves of the position of a stream.
const saveInterval = time.Second

// follower shows events and keeps the position.
type follower struct {
	*session
	following

	position position
	events   int
	saved    time.Time
}

// position is a position in the log of an epoch.
type position struct {
	Epoch    string `json:"epoch"` // "": unknown
	Position int64  `json:"position"`
}

// open reads the state file, if there is one.
func (f following) open(s *session) (*follower, error) {
	if f.After < 0 {
		return nil, newUsageError("--after: must not be negative")
	}
	result := &follower{session: s, following: f, position: position{Position: f.After}, saved: time.Now()}
	if f.State == "" {
		return result, nil
	}
	text, err := os.ReadFile(f.State)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return result, nil
	case err != nil:
		return nil, err
	case f.After != 0:
		return nil, newUsageError("--after cannot be used with a state file that exists; remove %s", f.State)
	}
	if err := json.Unmarshal(text, &result.position); err != nil {
		return nil, fmt.Errorf("state file %s: %w", f.State, err)
	}
	return result, nil
}

// resumes reports whether the stream starts at a position.
func (f *follower) resumes() bool { return f.position != position{} }

// show shows an event, and runs the command for it.
func (f *follower) show(ctx context.Context, message proto.Message, columns ...string) error {
	if err := f.event(message, columns...); err != nil {
		return err
	}
	if f.Exec != "" {
		text, err := encodeJSON(message)
		if err != nil {
			return err
		}
		// Ctrl-C does not end a command, so that its event is complete.
		command := exec.CommandContext(context.WithoutCancel(ctx), "sh", "-c", f.Exec) //nolint:gosec // the user chooses the command
		command.Stdin, command.Stdout, command.Stderr = bytes.NewReader(append(text, '\n')), f.console.out, f.err
		if err := command.Run(); err != nil {
			return fmt.Errorf("--exec: %w", err)
		}
	}
	f.events++
	return nil
}

// moved records a position that is complete, and saves it if the last save is old.
func (f *follower) moved(at position) error {
	if at.Epoch == "" {
		at.Epoch = f.position.Epoch
	}
	f.position = at
	if time.Since(f.saved) < saveInterval {
		return nil
	}
	return f.save()
}

func (f *follower) save() error {
	f.saved = time.Now()
	if f.State == "" || !f.resumes() {
		return nil
	}
	text, err := json.Marshal(f.position)
	if err != nil {
		return err
	}
	return writeFile(f.State, append(text, '\n'))
}

// end saves the position. After Ctrl-C it prints a summary and returns nil.
func (f *follower) end(ctx context.Context, err error) error {
	if failed := f.save(); failed != nil {
		return errors.Join(err, failed)
	}
	if ctx.Err() == nil {
		return err
	}
	_, failed := fmt.Fprintf(f.err, "stopped after %d events at position %d\n", f.events, f.position.Position)
	return failed
}
