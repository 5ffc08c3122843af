package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"github.com/yourorg/userservice/client"
	"github.com/yourorg/userservice/service/servertest"
)

func TestExitStatus(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("disk full"), 1},
		{newUsageError("bad"), 2},
		{newNotFoundError("email", "a@b"), 3},
		{context.Canceled, 130},
		{&client.Error{Code: connect.CodeInternal}, 1},
		{&client.Error{Code: connect.CodeResourceExhausted}, 1},
		{&client.Error{Code: connect.CodeInvalidArgument}, 2},
		{&client.Error{Code: connect.CodeOutOfRange}, 2},
		{&client.Error{Code: connect.CodeNotFound}, 3},
		{&client.Error{Code: connect.CodeAlreadyExists}, 4},
		{&client.Error{Code: connect.CodeFailedPrecondition}, 4},
		{fmt.Errorf("ada: %w", &client.Error{Code: connect.CodeAborted}), 4},
		{&client.Error{Code: connect.CodeUnauthenticated}, 5},
		{&client.Error{Code: connect.CodePermissionDenied}, 5},
		{&client.Error{Code: connect.CodeUnavailable}, 6},
		{&client.Error{Code: connect.CodeDeadlineExceeded}, 6},
		{&client.Error{Code: connect.CodeCanceled}, 130},
	} {
		if got := exitStatus(c.err); got != c.want {
			t.Errorf("exitStatus(%v) = %d, want %d", c.err, got, c.want)
		}
	}
}

func TestHelpDocumentsExitStatuses(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	run(t.Context(), []string{"--help"}, console{out: &out, err: &bytes.Buffer{}, exit: func(int) {}})
	for _, want := range []string{"\n    0    success\n", "\n    6    server unavailable or timed out\n", "USERCTL_SERVER", "\n  list "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("--help does not contain %q:\n%s", want, &out)
		}
	}
}

func TestUnreachableServer(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"list"}, {"health"}, {"activities", "--follow", "--limit", "0"}, {"status", "watch"}} {
		var out, stderr bytes.Buffer
		// Port 1 is not used.
		status := run(t.Context(), append(args, "--server", "http://127.0.0.1:1"), console{in: strings.NewReader(""), out: &out, err: &stderr})
		if status != statusUnavailable || !strings.Contains(stderr.String(), "hint: check --server or USERCTL_SERVER") {
			t.Errorf("userctl %s: exit status %d, %q; want %d and a hint", args, status, &stderr, statusUnavailable)
		}
	}
}

// Destructive commands ask on a terminal.
func TestConfirmation(t *testing.T) {
	s := servertest.Start(t)
	must(t, s, "create", "Ada Lovelace", "ada@example.org")
	for _, c := range []struct {
		input  string
		status int
	}{{"", statusFailed}, {"\n", statusUsage}, {"n\n", statusUsage}, {"yes\n", statusOK}} {
		r := userctlOn(t, s, console{in: strings.NewReader(c.input), inTerminal: true}, "delete", "ada lovelace")
		question, _, _ := strings.Cut(r.err, "] ")
		if want := "delete user ada lovelace? [y/N"; question != want || r.status != c.status {
			t.Errorf("with the input %q: %q and exit status %d, want %q and %d", c.input, question, r.status, want, c.status)
		}
		deleted := strings.Contains(must(t, s, "list", "--show-deleted"), "deleted")
		if want := c.status == statusOK; deleted != want {
			t.Errorf("with the input %q: deleted = %t, want %t", c.input, deleted, want)
		}
	}
}

// Control characters of users do not reach the terminal.
func TestControlCharacters(t *testing.T) {
	s := servertest.Start(t)
	must(t, s, "create", "Ada Lovelace", "ada@example.org", "-m", "a=\x1b[31mred\nline\tcell")
	got := must(t, s, "get", "ada@example.org")
	if want := "\nmetadata.a        \uFFFD[31mred\uFFFDline\uFFFDcell\n"; !strings.Contains(got, want) {
		t.Errorf("the output is %q, want one with %q", got, want)
	}
}

func TestFollowActivities(t *testing.T) {
	s := servertest.Start(t)
	must(t, s, "create", "Ada Lovelace", "ada@example.org")
	must(t, s, "record", "ada@example.org", "order.first")
	must(t, s, "record", "ada@example.org", "order.second")
	follow := start(t, s, "activities", "ada@example.org", "--follow", "--limit", "1")
	follow.out.wait(t, "order.second")
	must(t, s, "record", "ada@example.org", "order.third")
	follow.out.wait(t, "order.third")
	r := follow.interrupt()
	want := "3  <TIME-------------->  <USER-ID--------->  order.second  {\"request_id\":\"<UUID>\"}\n" +
		"4  <TIME-------------->  <USER-ID--------->  order.third  {\"request_id\":\"<UUID>\"}\n"
	if r.out != want || r.status != statusOK {
		t.Errorf("output %q, exit status %d, want %q, %d", r.out, r.status, want, statusOK)
	}
}

func TestWatchStatus(t *testing.T) {
	s := servertest.Start(t)
	must(t, s, "create", "Ada Lovelace", "ada@example.org")
	watch := start(t, s, "status", "watch", "ada@example.org")
	watch.out.wait(t, "active")
	must(t, s, "status", "set", "ada@example.org", "suspended")
	watch.out.wait(t, "suspended")
	must(t, s, "delete", "ada@example.org", "--yes")
	r := watch.wait() // it ends by itself
	want := "<TIME-------------->  1  <USER-ID--------->  active\n" +
		"<TIME-------------->  2  <USER-ID--------->  suspended\n" +
		"  3  <USER-ID--------->  user is deleted\n"
	if r.out != want || r.status != statusConflict {
		t.Errorf("output %q, exit status %d, want %q, %d", r.out, r.status, want, statusConflict)
	}
}
