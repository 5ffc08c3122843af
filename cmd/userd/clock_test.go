package main_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/timestamppb"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
)

// clockRig is a program whose system clock a test sets.
type clockRig struct {
	program
	offset  string // the file that says by how much the clock is off
	admin   string
	process *process
	client  userv1connect.UserServiceClient
}

func startClockRig(t *testing.T) *clockRig {
	t.Helper()
	dir := t.TempDir()
	c := &clockRig{offset: filepath.Join(t.TempDir(), "offset"), admin: adminAddress()}
	c.program = program{
		dir: dir, fault: "clock", env: []string{"USERD_FAULT_CLOCK=" + c.offset},
		flags: []string{"--retention", "1h", "--admin-listen", c.admin},
	}
	c.restart(t, 0)
	return c
}

// set sets the clock of the running program.
func (c *clockRig) set(t *testing.T, off time.Duration) {
	t.Helper()
	if err := os.WriteFile(c.offset+".new", []byte(off.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(c.offset+".new", c.offset); err != nil {
		t.Fatal(err)
	}
}

// restart kills the program and starts it with another clock. The first round of
// housekeeping has ended when it returns.
func (c *clockRig) restart(t *testing.T, off time.Duration) {
	t.Helper()
	if c.process != nil {
		c.process.kill()
	}
	c.set(t, off)
	c.process = c.start(t)
	c.client = c.process.client(t, 1<<20)
	eventually(within(t, time.Minute), t, func(ctx context.Context) error {
		text := c.get(ctx, t, "/metrics")
		for _, step := range []string{"purge", "forget"} {
			if !strings.Contains(text, `userd_housekeeping_last_success_timestamp_seconds{step="`+step) ||
				strings.Contains(text, "step=\""+step+"\"} 0\n") && !strings.Contains(text, "userd_housekeeping_last_success_timestamp_seconds{step=\""+step+"\"} 1") {
				return fmt.Errorf("%s has not ended", step)
			}
		}
		return nil
	})
}

func (c *clockRig) get(ctx context.Context, t *testing.T, path string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.admin+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }() // only read
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func (c *clockRig) create(ctx context.Context, t *testing.T, req *userv1.CreateUserRequest) *userv1.User {
	t.Helper()
	resp, err := c.client.CreateUser(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetUser()
}

// mustBeNow fails unless a time is that of the machine, which was never set.
func mustBeNow(t *testing.T, what string, at *timestamppb.Timestamp) {
	t.Helper()
	if off := time.Since(at.AsTime()).Abs(); off > time.Minute {
		t.Errorf("%s is off by %v: %v", what, off, at.AsTime())
	}
}

// mustTakeStatus sets the status of a user by the time of a device whose clock is right.
func (c *clockRig) mustTakeStatus(ctx context.Context, t *testing.T, id int64, status userv1.UserStatus) {
	t.Helper()
	resp, err := c.client.UpdateUserStatus(ctx, &userv1.UpdateUserStatusRequest{UserId: id, Status: status, Timestamp: timestamppb.Now()})
	if err != nil {
		t.Errorf("UpdateUserStatus with a right time: %v", err)
		return
	}
	if got := resp.GetStatusUpdate().GetStatus(); got != status {
		t.Errorf("UpdateUserStatus with a right time: got %v, want %v: it was dropped", got, status)
	}
}

// A clock that is wrong for a while, from a start on or under the running program, does
// not purge, forget a request id, refuse or drop a status, or give the log a wrong time.
func TestWrongClock(t *testing.T) {
	t.Parallel()
	const year = 365 * 24 * time.Hour
	for name, off := range map[string]time.Duration{
		"64 years ahead": 64 * year, "two days ahead": 48 * time.Hour, "two hours ahead": 2 * time.Hour,
		"two hours back": -2 * time.Hour, "64 years back": -64 * year,
	} {
		t.Run(name, func(t *testing.T) {
			ctx := within(t, time.Minute)
			c := startClockRig(t)
			once := &userv1.CreateUserRequest{Username: "once", Email: "once@example.org", RequestId: uuid.NewString()}
			first := c.create(ctx, t, once)
			before := c.create(ctx, t, newUser("deleted", 1))
			c.mustDelete(ctx, t, before)

			c.restart(t, off)
			c.process.output.await(t, "system clock jumped")
			if text := c.get(ctx, t, "/readyz"); !hasAll(text, []string{"ready\nclock: the system clock, ", "the expected time"}) {
				t.Errorf("/readyz: %q, want that the clock is wrong", text)
			}
			if text := c.get(ctx, t, "/metrics"); !hasAll(text, []string{"userd_clock_confirmed 0"}) {
				t.Error("userd_clock_confirmed is not 0")
			}
			during := c.create(ctx, t, newUser("during", 1))
			c.mustTakeStatus(ctx, t, first.GetUserId(), userv1.UserStatus_USER_STATUS_INACTIVE)
			gone := c.create(ctx, t, newUser("deleted", 2))
			c.mustDelete(ctx, t, gone)
			if again := c.create(ctx, t, once); again.GetUserId() != first.GetUserId() {
				t.Error("a request id was forgotten")
			}

			c.set(t, 0)
			after := c.create(ctx, t, newUser("after", 1))
			for _, u := range []*userv1.User{during, after} {
				mustBeNow(t, "created_at of "+u.GetUsername(), u.GetCreatedAt())
			}
			c.mustTakeStatus(ctx, t, during.GetUserId(), userv1.UserStatus_USER_STATUS_INACTIVE)
			if text := c.get(ctx, t, "/readyz"); text != "ready\n" {
				t.Errorf("/readyz: %q after the clock is right", text)
			}
			if text := c.get(ctx, t, "/metrics"); !hasAll(text, []string{"userd_clock_confirmed 1",
				`userd_clock_jumps_total{direction="forward"} 1`, `userd_clock_jumps_total{direction="backward"} 1`}) {
				t.Error("the metrics do not tell of two jumps and a clock that is right")
			}
			c.restart(t, 0)
			if again := c.create(ctx, t, once); again.GetUserId() != first.GetUserId() {
				t.Error("a request id was forgotten")
			}
			for _, u := range []*userv1.User{before, gone} {
				if _, err := c.client.UndeleteUser(ctx, &userv1.UndeleteUserRequest{UserId: u.GetUserId()}); err != nil {
					t.Errorf("user %s: %v, want it undeleted", u.GetUsername(), err)
				}
			}
		})
	}
}

func (c *clockRig) mustDelete(ctx context.Context, t *testing.T, u *userv1.User) {
	t.Helper()
	resp, err := c.client.DeleteUser(ctx, &userv1.DeleteUserRequest{UserId: u.GetUserId()})
	if err != nil {
		t.Fatal(err)
	}
	mustBeNow(t, "an hour before purge_at of "+u.GetUsername(), timestamppb.New(resp.GetUser().GetPurgeAt().AsTime().Add(-time.Hour)))
}

// The operator can confirm a clock at start; then what is due by it is purged. Time that
// has passed by the elapsed time too needs no confirmation.
func TestConfirmedClock(t *testing.T) {
	t.Parallel()
	ctx := within(t, time.Minute)
	for name, confirm := range map[string]func(t *testing.T, c *clockRig){
		"by flag": func(_ *testing.T, c *clockRig) { c.flags = append(c.flags, "--trust-clock") },
		"by elapsed time": func(t *testing.T, c *clockRig) {
			if err := os.WriteFile(c.offset+".elapsed", []byte("2h"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := startClockRig(t)
			u := c.create(ctx, t, newUser("deleted", 1))
			c.mustDelete(ctx, t, u)
			c.process.terminate(t)
			confirm(t, c)
			c.restart(t, 2*time.Hour)
			if text := c.get(ctx, t, "/readyz"); text != "ready\n" {
				t.Errorf("/readyz: %q", text)
			}
			if _, err := c.client.GetUser(ctx, &userv1.GetUserRequest{UserId: u.GetUserId()}); connect.CodeOf(err) != connect.CodeNotFound {
				t.Errorf("GetUser = %v, want that the user is purged", err)
			}
		})
	}
}
