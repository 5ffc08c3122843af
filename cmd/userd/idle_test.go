package main_test

import (
	"context"
	"io"
	"net/http"
	"testing"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
)

// The stack of a stream that waits is not more than 8 KiB: fewer than 3,296 bytes of it are in use.
func TestIdleStreamStack(t *testing.T) {
	t.Run("anonymous", func(t *testing.T) { idleStreamStack(t, t.TempDir(), "", nil) })
	t.Run("authenticated", func(t *testing.T) {
		dir := t.TempDir()
		token, flags := issueToken(t, dir)
		idleStreamStack(t, dir, token, flags)
	})
}

func idleStreamStack(t *testing.T, dir, token string, flags []string) {
	const streams = 500
	admin := adminAddress()
	p := program{dir: dir, flags: append(flags, "--admin-listen", admin)}.start(t)
	p.token = token
	client := p.client(t, 1<<20)
	one, err := client.CreateUser(t.Context(), newUser("idle", 0))
	if err != nil {
		t.Fatal(err)
	}
	before := stackBytes(t, admin)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var open errgroup.Group
	for range streams {
		open.Go(func() error {
			ctx, info := connect.NewClientContext(ctx)
			info.RequestHeader().Set("Authorization", "Bearer "+token) // ignored without authentication
			stream, err := client.StreamUserActivities(ctx, &userv1.StreamUserActivitiesRequest{UserId: one.GetUser().GetUserId()})
			if err == nil && !stream.Receive() { // the user.created row
				err = stream.Err()
			}
			return err
		})
	}
	if err := open.Wait(); err != nil {
		t.Fatal(err)
	}
	got, want := (stackBytes(t, admin)-before)/streams/1024, 10.0
	t.Logf("%.1f KiB of stack for each of %d idle streams", got, streams)
	if got > want {
		t.Errorf("the stack of an idle stream is %.1f KiB, want at most %.0f", got, want)
	}
}

// stackBytes returns the memory of stacks after collections, which shrink them.
func stackBytes(t *testing.T, admin string) float64 {
	t.Helper()
	for range 4 {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+admin+"/debug/pprof/heap?gc=1", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		res, err := (&http.Client{Timeout: hangTimeout}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("GET %s = %s, %v", req.URL, res.Status, err)
		}
		_ = res.Body.Close()
	}
	return metric(t, admin, "go_memstats_stack_inuse_bytes")
}
