package main_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
)

// BenchmarkREST compares the CPU time of GetUser over REST and over Connect with JSON, of one
// process and with the same HTTP client. It reports the medians of the turns, and the median ratio.
func BenchmarkREST(b *testing.B) {
	p := program{dir: b.TempDir()}.start(b)
	created, err := p.client(b, 1<<20).CreateUser(b.Context(), newUser("rest", 0))
	if err != nil {
		b.Fatal(err)
	}
	id := strconv.FormatInt(created.GetUser().GetUserId(), 10)
	turns := []func() time.Duration{
		requestTurn(b, p, http.MethodPost, userv1connect.UserServiceGetUserProcedure, `{"userId":"`+id+`"}`),
		requestTurn(b, p, http.MethodGet, "/api/v1/users/"+id, ""),
	}
	for b.Loop() {
		var connects, rests, ratios []float64
		for round := range 1 + chainRounds {
			connect := float64(turns[0]().Nanoseconds()) / chainCalls / 1e3
			rest := float64(turns[1]().Nanoseconds()) / chainCalls / 1e3
			if round > 0 { // the first is a warm-up
				connects, rests, ratios = append(connects, connect), append(rests, rest), append(ratios, rest/connect)
			}
		}
		b.ReportMetric(median(connects), "connect-µs/call")
		b.ReportMetric(median(rests), "rest-µs/call")
		b.ReportMetric(median(ratios), "rest/connect")
	}
}

// requestTurn returns a function that makes chainCalls requests on 8 HTTP/1.1 connections and
// returns the CPU time of the process.
func requestTurn(b *testing.B, p *process, method, path, body string) func() time.Duration {
	const callers = 8
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: callers}}
	b.Cleanup(client.CloseIdleConnections)
	return func() time.Duration {
		before := runTime(b, p)
		err := share(callers, chainCalls, func(int, int) error {
			req, err := http.NewRequestWithContext(b.Context(), method, p.url()+path, strings.NewReader(body))
			if err != nil {
				return err
			}
			if body != "" {
				req.Header.Set("Content-Type", "application/json")
			}
			resp, err := client.Do(req)
			if err != nil {
				return err
			}
			_, err = io.Copy(io.Discard, resp.Body)
			if closeErr := resp.Body.Close(); err == nil {
				err = closeErr
			}
			if err == nil && resp.StatusCode != http.StatusOK {
				err = fmt.Errorf("%s: status %d", path, resp.StatusCode)
			}
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
		return runTime(b, p) - before
	}
}

// BenchmarkIdleEvents measures the memory and the goroutines of 2,000 idle event streams on ten HTTP/2
// connections.
func BenchmarkIdleEvents(b *testing.B) {
	const connections, streams = 10, 200
	for b.Loop() {
		admin := adminAddress()
		p := program{dir: b.TempDir(), flags: []string{"--admin-listen", admin, "--max-streams-per-caller", "0"}}.start(b)
		client := p.client(b, 1<<20)
		created, err := client.CreateUser(b.Context(), newUser("idle", 0))
		if err != nil {
			b.Fatal(err)
		}
		path := fmt.Sprintf("%s/api/v1/users/%d/activities", p.url(), created.GetUser().GetUserId())
		memory, goroutines, stacks := residentBytes(b, p), metric(b, admin, "go_goroutines"), metric(b, admin, "go_memstats_stack_inuse_bytes")
		ctx, cancel := context.WithCancel(b.Context())
		var open errgroup.Group
		for range connections {
			http2, closeIdle := newHTTP2(1 << 20)
			b.Cleanup(closeIdle)
			for range streams {
				open.Go(func() error { return openEvents(ctx, http2, path) })
			}
		}
		if err := open.Wait(); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(residentBytes(b, p)-memory)/(connections*streams)/1024, "KiB/stream")
		b.ReportMetric((metric(b, admin, "go_goroutines")-goroutines)/(connections*streams), "goroutines/stream")
		b.ReportMetric((metric(b, admin, "go_memstats_stack_inuse_bytes")-stacks)/(connections*streams)/1024, "KiB-of-stack/stream")
		cancel()
		p.kill()
	}
}

// openEvents opens an event stream and reads its first event.
func openEvents(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "text/event-stream")
	resp, err := client.Do(req) //nolint:bodyclose // open until the context is canceled
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "data: ") {
			return nil
		}
	}
	return fmt.Errorf("stream ended: status %d, %w", resp.StatusCode, lines.Err())
}

// metric reads a metric without labels.
func metric(b testing.TB, admin, name string) float64 {
	b.Helper()
	req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, "http://"+admin+"/metrics", http.NoBody)
	if err != nil {
		b.Fatal(err)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			value, err := strconv.ParseFloat(text, 64)
			if err != nil {
				b.Fatal(err)
			}
			return value
		}
	}
	b.Fatalf("no metric %s", name)
	return 0
}
