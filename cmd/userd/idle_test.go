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

// The stack of a stream that waits is not more than 8 KiB: fewer than 3,296 bytes of it are in use. Its live heap is 5 KiB, and 0.9 more with credentials.
func TestIdleStreamStack(t *testing.T) {
	t.Run("anonymous", func(t *testing.T) { idleStreamStack(t, t.TempDir(), "", nil, 6) })
	t.Run("authenticated", func(t *testing.T) {
		dir := t.TempDir()
		token, flags := issueToken(t, dir)
		idleStreamStack(t, dir, token, flags, 7)
	})
}

func idleStreamStack(t *testing.T, dir, token string, flags []string, mostHeap float64) {
	const streams = 500
	admin := adminAddress()
	p := program{dir: dir, flags: append(flags, "--admin-listen", admin)}.start(t)
	p.token = token
	client := p.client(t, 1<<20)
	one, err := client.CreateUser(t.Context(), newUser("idle", 0))
	if err != nil {
		t.Fatal(err)
	}
	stackBefore, heapBefore := idleBytes(t, admin)
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
	stack, heap := idleBytes(t, admin)
	for _, row := range []struct {
		name      string
		got, want float64
	}{{"stack", (stack - stackBefore) / streams / 1024, 10}, {"heap", (heap - heapBefore) / streams / 1024, mostHeap}} {
		t.Logf("%.1f KiB of %s for each of %d idle streams", row.got, row.name, streams)
		if row.got > row.want {
			t.Errorf("%s of an idle stream = %.1f KiB, want at most %.0f", row.name, row.got, row.want)
		}
	}
}

// idleBytes returns the memory of stacks and of live heap objects after collections, which shrink stacks.
func idleBytes(t *testing.T, admin string) (stack, heap float64) {
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
	return metric(t, admin, "go_memstats_stack_inuse_bytes"), metric(t, admin, "go_memstats_heap_alloc_bytes")
}
