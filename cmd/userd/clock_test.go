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

// clockRig runs a program with a fake system clock.
type clockRig struct {
	program
	offset  string // file with the offset of the fake clock
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

// restart kills the program, starts it with another clock offset, and waits for the first
// round of housekeeping.
func (c *clockRig) restart(t *testing.T, off time.Duration) {
	t.Helper()
	if c.process != nil {
		c.process.kill()
	}
	c.set(t, off)
	c.process = c.start(t)
	c.client = c.process.client(t, 1<<20)
	eventually(within(t, hangTimeout), t, func(ctx context.Context) error {
		text := c.get(ctx, t, "/metrics")
		for _, step := range []string{"purge", "expire"} {
			if !strings.Contains(text, `userd_housekeeping_last_success_timestamp_seconds{step="`+step) ||
				strings.Contains(text, "step=\""+step+"\"} 0\n") && !strings.Contains(text, "userd_housekeeping_last_success_timestamp_seconds{step=\""+step+"\"} 1") {
				return fmt.Errorf("step %s has not succeeded yet", step)
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
	defer func() { _ = resp.Body.Close() }()
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

// mustBeNow fails the test unless a time is close to the real time.
func mustBeNow(t *testing.T, name string, at *timestamppb.Timestamp) {
	t.Helper()
	if off := time.Since(at.AsTime()).Abs(); off > time.Minute {
		t.Errorf("%s differs by %v from now: %v", name, off, at.AsTime())
	}
}

// mustSetStatus sets the status of a user with the real time as its timestamp.
func (c *clockRig) mustSetStatus(ctx context.Context, t *testing.T, id int64, status userv1.UserStatus) {
	t.Helper()
	resp, err := c.client.UpdateUserStatus(ctx, &userv1.UpdateUserStatusRequest{UserId: id, Status: status, Timestamp: timestamppb.Now()})
	if err != nil {
		t.Errorf("UpdateUserStatus with the real time: %v", err)
		return
	}
	if got := resp.GetStatusUpdate().GetStatus(); got != status {
		t.Errorf("UpdateUserStatus with the real time: status = %v, want %v", got, status)
	}
}

// While the clock is wrong, users are not purged, request ids do not expire, status updates
// are accepted and log times are right.
func TestWrongClock(t *testing.T) {
	t.Parallel()
	const year = 365 * 24 * time.Hour
	for name, off := range map[string]time.Duration{
		"64 years ahead": 64 * year, "two days ahead": 48 * time.Hour, "two hours ahead": 2 * time.Hour,
		"two hours back": -2 * time.Hour, "64 years back": -64 * year,
	} {
		t.Run(name, func(t *testing.T) {
			ctx := within(t, hangTimeout)
			c := startClockRig(t)
			create := &userv1.CreateUserRequest{Username: "once", Email: "once@example.org", RequestId: uuid.NewString()}
			first := c.create(ctx, t, create)
			before := c.create(ctx, t, newUser("deleted", 1))
			c.mustDelete(ctx, t, before)

			c.restart(t, off)
			c.process.output.await(t, "system clock jumped")
			if text := c.get(ctx, t, "/readyz"); !hasAll(text, []string{"ready\nclock: system clock ", "the expected time"}) {
				t.Errorf("/readyz = %q, want a clock warning", text)
			}
			if text := c.get(ctx, t, "/metrics"); !hasAll(text, []string{"userd_clock_confirmed 0"}) {
				t.Error("userd_clock_confirmed is missing or not 0")
			}
			during := c.create(ctx, t, newUser("during", 1))
			c.mustSetStatus(ctx, t, first.GetUserId(), userv1.UserStatus_USER_STATUS_INACTIVE)
			gone := c.create(ctx, t, newUser("deleted", 2))
			c.mustDelete(ctx, t, gone)
			if again := c.create(ctx, t, create); again.GetUserId() != first.GetUserId() {
				t.Error("a request id expired")
			}

			c.set(t, 0)
			after := c.create(ctx, t, newUser("after", 1))
			for _, u := range []*userv1.User{during, after} {
				mustBeNow(t, "created_at of "+u.GetUsername(), u.GetCreatedAt())
			}
			c.mustSetStatus(ctx, t, during.GetUserId(), userv1.UserStatus_USER_STATUS_INACTIVE)
			if text := c.get(ctx, t, "/readyz"); text != "ready\n" {
				t.Errorf("/readyz = %q after the clock is right, want ready", text)
			}
			if text := c.get(ctx, t, "/metrics"); !hasAll(text, []string{"userd_clock_confirmed 1",
				`userd_clock_jumps_total{direction="forward"} 1`, `userd_clock_jumps_total{direction="backward"} 1`}) {
				t.Error("clock metrics do not show two jumps and a confirmed clock")
			}
			c.restart(t, 0)
			if again := c.create(ctx, t, create); again.GetUserId() != first.GetUserId() {
				t.Error("a request id expired")
			}
			for _, u := range []*userv1.User{before, gone} {
				if _, err := c.client.UndeleteUser(ctx, &userv1.UndeleteUserRequest{UserId: u.GetUserId()}); err != nil {
					t.Errorf("UndeleteUser(%s): %v", u.GetUsername(), err)
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

// A jumped clock is accepted with --trust-clock, or if the elapsed time agrees. Users that are
// due are then purged.
func TestConfirmedClock(t *testing.T) {
	t.Parallel()
	ctx := within(t, hangTimeout)
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
				t.Errorf("/readyz = %q, want ready", text)
			}
			if _, err := c.client.GetUser(ctx, &userv1.GetUserRequest{UserId: u.GetUserId()}); connect.CodeOf(err) != connect.CodeNotFound {
				t.Errorf("GetUser error = %v, want NOT_FOUND", err)
			}
		})
	}
}
