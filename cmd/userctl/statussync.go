package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"google.golang.org/protobuf/encoding/protojson"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
)

// statusSyncCommand is userctl status sync.
type statusSyncCommand struct {
	Follow bool `short:"F" help:"Show the changes that others make to the users too, and continue after the input until Ctrl-C."`
}

// Help is the detailed help.
func (*statusSyncCommand) Help() string {
	return "A line of standard input is a user and a status, such as \"ada@example.org suspended\", or the JSON of a UserStatusUpdate. " +
		"Each line has a line of output when its status is durable, in the order of the input."
}

// Run sends the statuses of standard input over one stream.
func (c *statusSyncCommand) Run(ctx context.Context, s *session) error {
	if err := s.reach(ctx); err != nil {
		return err
	}
	streaming, cancel := context.WithCancel(ctx)
	defer cancel()
	requests, responses := make(chan *userv1.UserStatusUpdate), make(chan *userv1.UserStatusUpdate)
	input, stream := make(chan statusInput, 1), make(chan error, 1)
	go func() { input <- s.readStatuses(streaming, requests, c.Follow) }()
	go func() { stream <- s.client.SyncUserStatus(streaming, requests, responses) }()
	var written error
	failed := 0
	for update := range responses {
		if written != nil || update.GetClientSeq() == 0 && !c.Follow {
			continue
		}
		if update.GetError() != nil && update.GetClientSeq() != 0 {
			failed++
		}
		if written = s.event(update, statusRow(update)...); written != nil {
			cancel()
		}
	}
	err := <-stream
	switch {
	case written != nil:
		return written
	case c.Follow && ctx.Err() != nil:
		return nil
	case err != nil:
		return err
	}
	read := <-input
	if failed += read.failed; failed > 0 {
		read.err = errors.Join(read.err, fmt.Errorf("%d of %d lines failed", failed, read.lines))
	}
	return read.err
}

// statusInput is the result of reading standard input.
type statusInput struct {
	lines, failed int
	err           error
}

// readStatuses sends a message for each line, and closes requests at the end or, with follow, leaves it open.
func (s *session) readStatuses(ctx context.Context, requests chan<- *userv1.UserStatusUpdate, follow bool) (read statusInput) {
	number := int64(0)
	scanner := bufio.NewScanner(s.lines)
	for scanner.Scan() {
		number++
		line := strings.TrimSpace(scanner.Text())
		if line == "" {
			continue
		}
		read.lines++
		message, err := s.parseStatusLine(ctx, line)
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			read.failed++
			_, _ = fmt.Fprintf(s.err, "line %d: %s\n", number, printable(reasonOf(err)))
			continue
		}
		message.ClientSeq = number
		select {
		case requests <- message:
		case <-ctx.Done():
			return read
		}
	}
	read.err = scanner.Err()
	if !follow {
		close(requests)
	}
	return read
}

// parseStatusLine parses a user and a status, or JSON.
func (s *session) parseStatusLine(ctx context.Context, line string) (*userv1.UserStatusUpdate, error) {
	message := new(userv1.UserStatusUpdate)
	if strings.HasPrefix(line, "{") {
		return message, protojson.Unmarshal([]byte(line), message)
	}
	space := strings.LastIndexFunc(line, unicode.IsSpace)
	if space < 0 {
		return nil, errors.New("must be a user and a status")
	}
	var err error
	if message.Status, err = parseStatus(line[space+1:]); err != nil { // the space may have several bytes
		return nil, err
	}
	message.UserId, err = s.userID(ctx, strings.TrimSpace(line[:space]))
	return message, err
}
