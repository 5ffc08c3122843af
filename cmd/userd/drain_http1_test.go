package main_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/yourorg/userservice/service/servertest"
)

// During a drain HTTP/1.1 keep-alive connections are closed with a response. No request on a
// reused connection fails without one.
func TestDrainHTTP1KeepAlive(t *testing.T) {
	const callers, enough = 64, 1500
	authority := servertest.NewAuthority(t)
	cert, key := authority.Server(t).Write(t, t.TempDir())
	for scheme, flags := range map[string][]string{"http": nil, "https": {"--tls-cert", cert, "--tls-key", key}} {
		t.Run(scheme, func(t *testing.T) {
			ctx := within(t, hangTimeout)
			program := program{dir: t.TempDir(), flags: flags}
			p := program.start(t)
			run := &http1Run{url: scheme + "://" + p.addr, drainRun: drainRun{enough: make(chan struct{})}}
			var all errgroup.Group
			for range callers {
				transport := &http.Transport{TLSClientConfig: authority.Trust()}
				t.Cleanup(transport.CloseIdleConnections)
				all.Go(func() error { return run.call(ctx, &http.Client{Transport: transport}, enough) })
			}
			<-run.enough
			p.terminate(t)
			if p.err != nil {
				t.Errorf("exit status: %v\n%s", p.err, p.output)
			}
			if err := all.Wait(); err != nil {
				t.Error(err)
			}
			program.flags = nil
			run.compare(ctx, t, program.start(t))
			t.Logf("%d writes acknowledged, %d refused", len(run.acked), len(run.refused))
		})
	}
}

// http1Run is a drainRun with HTTP/1.1 clients.
type http1Run struct {
	drainRun

	url string
}

// call creates users until the server refuses one. It returns an error for an aborted request.
func (r *http1Run) call(ctx context.Context, client *http.Client, enough int) error {
	for {
		name := fmt.Sprintf("kept-%06d", r.next.Add(1))
		reused := false
		traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { reused = info.Reused }})
		status, err := r.post(traced, client, fmt.Sprintf(`{"username":%q,"email":"%s@example.org"}`, name, name))
		r.mu.Lock()
		if status == http.StatusOK {
			r.acked = append(r.acked, name)
		} else {
			r.refused = append(r.refused, name)
		}
		if status == http.StatusOK && len(r.acked) == enough {
			close(r.enough)
		}
		r.mu.Unlock()
		switch {
		case status == http.StatusServiceUnavailable, errors.Is(err, syscall.ECONNREFUSED):
			return nil
		case errors.Is(err, syscall.ECONNRESET) && !reused:
			// The connection was in the accept queue when the listener was closed.
			return nil
		case err != nil || status != http.StatusOK:
			return fmt.Errorf("create %s: status %d, %w (reused connection: %t)", name, status, err, reused)
		}
	}
}

func (r *http1Run) post(ctx context.Context, client *http.Client, body string) (status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url+"/user.v1.UserService/CreateUser", strings.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.GetBody = nil // prevents retries by net/http
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }() // read to the end
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}
