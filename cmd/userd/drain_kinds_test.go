package main_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"

	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/servertest"
)

// During a drain each kind of stream, over each protocol, ends with SERVER_DRAINING and the
// position to resume from.
func TestDrainEndsAllStreams(t *testing.T) {
	authority := servertest.NewAuthority(t)
	cert, key := authority.Server(t).Write(t, t.TempDir())
	for name, program := range map[string]program{
		"h2c": {dir: t.TempDir()},
		"TLS": {dir: t.TempDir(), flags: []string{"--tls-cert", cert, "--tls-key", key}, trust: authority.Trust()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := within(t, hangTimeout)
			p := program.start(t)
			id := createOne(ctx, t, p)
			if err := record(ctx, p.client(t, 1<<20), id, "test.noted", "the last row"); err != nil {
				t.Fatal(err)
			}
			kinds := p.streamKinds(t, id)
			ends := make(map[string]error)
			var mu sync.Mutex
			var open, ended sync.WaitGroup
			for kind, run := range kinds {
				open.Add(1)
				opened := sync.OnceFunc(open.Done)
				ended.Go(func() {
					defer opened() // also if it fails
					err := run(ctx, opened)
					mu.Lock()
					defer mu.Unlock()
					ends[kind] = err
				})
			}
			open.Wait()
			start := time.Now()
			p.terminate(t)
			if took := time.Since(start); p.err != nil || took > 5*time.Second {
				t.Errorf("shutdown took %v, exit status: %v\n%s", took, p.err, p.output)
			}
			ended.Wait()
			for kind, err := range ends {
				info := infoOf(err)
				if connect.CodeOf(err) != connect.CodeUnavailable || info.GetReason() != "SERVER_DRAINING" ||
					info.GetMetadata()["position"] != "2" || info.GetMetadata()["epoch"] == "" {
					t.Errorf("%s ended with %v (%v), want SERVER_DRAINING at position 2", kind, err, info)
				}
			}
		})
	}
}

// streamKind runs a stream to its end. It calls opened when the stream is open.
type streamKind func(ctx context.Context, opened func()) error

func (p *process) streamKinds(t *testing.T, id int64) map[string]streamKind {
	http1 := &http.Transport{TLSClientConfig: p.trust.Clone()}
	t.Cleanup(http1.CloseIdleConnections)
	http2, closeIdle := newHTTP2(1 << 20)
	if p.trust != nil {
		http2, closeIdle = newSecureHTTP2(1<<20, p.trust)
	}
	t.Cleanup(closeIdle)
	kinds := make(map[string]streamKind)
	for _, protocol := range servertest.Protocols() {
		transport := &http.Client{Transport: http1}
		if protocol.HTTP2 {
			transport = http2
		}
		client := userv1connect.NewUserServiceClient(transport, p.url(), protocol.Options...)
		kinds["StreamUserActivities, "+protocol.Name] = func(ctx context.Context, opened func()) error {
			_, err := followLog(ctx, client, id, opened)
			return err
		}
		kinds["WatchUserStatus, "+protocol.Name] = func(ctx context.Context, opened func()) error {
			_, err := followStatus(ctx, client, id, opened)
			return err
		}
		kinds["WatchUserStatus of all, "+protocol.Name] = func(ctx context.Context, opened func()) error {
			_, err := followStatus(ctx, client, 0, opened)
			return err
		}
		if protocol.HTTP2 {
			kinds["SyncUserStatus, "+protocol.Name] = func(ctx context.Context, opened func()) error {
				_, err := syncStatus(ctx, client, id, opened)
				return err
			}
		}
	}
	path := fmt.Sprintf("%s/api/v1/users/%d/activities", p.url(), id)
	for name, transport := range map[string]*http.Client{"HTTP/1.1": {Transport: http1}, "HTTP/2": http2} {
		kinds["events over "+name] = restStream(transport, path, "text/event-stream")
		kinds["lines over "+name] = restStream(transport, path, "application/x-ndjson")
		kinds["events of statuses over "+name] = restStream(transport, p.url()+"/api/v1/users:watchStatus?user_ids="+strconv.FormatInt(id, 10), "text/event-stream")
	}
	health := grpchealth.NewClient(http2, p.url(), connect.WithGRPC())
	kinds["Watch of health"] = func(ctx context.Context, opened func()) error {
		for event := range health.Watch(ctx, &grpchealth.CheckRequest{Service: writesName}) {
			opened()
			if event.Err != nil {
				return event.Err // Watch would retry
			}
		}
		return nil
	}
	return kinds
}

// restStream reads a REST stream and returns its final error as a Connect error.
func restStream(client *http.Client, url, accept string) streamKind {
	return func(ctx context.Context, opened func()) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		req.Header.Set("Accept", accept)
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }()
		first := make([]byte, 1)
		if _, err := io.ReadFull(resp.Body, first); err != nil {
			return err
		}
		opened()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return err
		}
		return statusError(strings.TrimSpace(string(first) + string(body)))
	}
}
