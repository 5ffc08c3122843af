package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/yourorg/userservice/client"
)

// session has what commands share: the console, the client and the output.
type session struct {
	console
	*output

	client  *client.Client
	servers []string
	options []client.Option
	epoch   *epoch
	pager   *pager        // nil: none
	lines   *bufio.Reader // of in, for questions
}

func newSession(command *kong.Context, all *commands, to console) (*session, error) {
	if err := all.useContext(command, to.err); err != nil {
		return nil, err
	}
	options, err := all.options()
	if err != nil {
		return nil, err
	}
	logger := slog.New(&interruptions{to.err})
	if all.Verbose {
		logger = slog.New(slog.NewTextHandler(to.err, nil))
	}
	servers := all.Server
	if len(servers) == 0 {
		servers = []string{defaultServer}
	}
	seen := new(epoch)
	options = append(options, client.WithLogger(logger))
	c, err := client.New(servers, append(options, client.WithInterceptors(seen))...)
	if err != nil {
		return nil, newUsageError("--server: %v", err)
	}
	return &session{
		console: to, output: newOutput(to, all.Output), client: c, servers: servers, options: options, epoch: seen,
		pager: newPager(to, all.NoPager), lines: bufio.NewReader(to.in),
	}, nil
}

// page shows the output in the pager, if it is on a terminal.
func (s *session) page() {
	if s.pager != nil {
		s.output.out = s.pager
	}
}

// close ends the command with its error.
func (s *session) close(err error) error {
	_ = s.client.Close()
	if s.pager != nil {
		err = s.pager.close(err)
	}
	return err
}

// confirm asks before a destructive command. Without a terminal, --yes is required.
func (s *session) confirm(yes bool, question string) error {
	if yes {
		return nil
	}
	if !s.inTerminal {
		return newUsageError("%s needs --yes, because standard input is not a terminal", question)
	}
	if _, err := fmt.Fprintf(s.err, "%s? [y/N] ", printable(question)); err != nil {
		return err
	}
	line, err := s.lines.ReadString('\n')
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the confirmation: %w", err)
	}
	return newUsageError("not confirmed, nothing was changed")
}

// interruptions is a log handler that prints interrupted streams only.
type interruptions struct{ w io.Writer }

// Enabled implements slog.Handler.
func (i *interruptions) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo
}

// Handle implements slog.Handler.
func (i *interruptions) Handle(_ context.Context, r slog.Record) error {
	if r.Message != "stream interrupted" {
		return nil
	}
	var cause string
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "error" {
			cause = a.Value.String()
		}
		return true
	})
	_, err := fmt.Fprintf(i.w, "userctl: connection lost, retrying: %s\n", printable(cause))
	return err
}

// WithAttrs implements slog.Handler.
func (i *interruptions) WithAttrs([]slog.Attr) slog.Handler { return i }

// WithGroup implements slog.Handler.
func (i *interruptions) WithGroup(string) slog.Handler { return i }
