package telemetry_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/yourorg/userservice/service/telemetry"
)

// statusWriter records the status, as the transport does.
type statusWriter struct {
	http.ResponseWriter

	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
func (w *statusWriter) Flush()                      { _ = http.NewResponseController(w.ResponseWriter).Flush() }

type calledKey struct{}

// countedServer serves one unary procedure and counts requests like the server.
func countedServer(t *testing.T, m *telemetry.Metrics) *httptest.Server {
	t.Helper()
	mark := connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
			ctx.Value(calledKey{}).(*atomic.Bool).Store(true) //nolint:errcheck // set below
			return next(ctx, r)
		}
	})
	mux := http.NewServeMux()
	mux.Handle("/x.Y/Z", connect.NewUnaryHandler("/x.Y/Z",
		func(_ context.Context, r *connect.Request[emptypb.Empty]) (*connect.Response[emptypb.Empty], error) {
			if r.Header().Get("Fail") != "" {
				return nil, connect.NewError(connect.CodeNotFound, errors.New("no"))
			}
			return connect.NewResponse(new(emptypb.Empty)), nil
		}, connect.WithInterceptors(mark), connect.WithIdempotency(connect.IdempotencyNoSideEffects)))
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		called, res := new(atomic.Bool), &statusWriter{ResponseWriter: w, status: http.StatusOK}
		r = r.WithContext(context.WithValue(r.Context(), calledKey{}, called))
		mux.ServeHTTP(res, r)
		m.HTTPDone(r, res.status, res.Header(), called.Load())
	}))
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Config.Protocols.SetHTTP1(true)
	server.Start()
	return server
}

func enveloped(body string) string {
	prefix := make([]byte, 5)
	binary.BigEndian.PutUint32(prefix[1:], uint32(len(body)))
	return string(prefix) + body
}

// Requests that reach no interceptor are counted for each protocol.
func TestUnhandledRequestsAreCounted(t *testing.T) {
	defer goleak.VerifyNone(t)
	const broken = "\x0a\xff" // a field longer than the message
	for name, c := range map[string]struct {
		method, path, content, body, fail string
		series                            string
		unhandled                         bool
	}{
		"grpc":                {content: "application/grpc", body: enveloped(""), series: "{code=200,protocol=grpc}"},
		"grpc failure":        {content: "application/grpc", body: enveloped(""), fail: "1", series: "{code=grpc_5,protocol=grpc}"},
		"grpc undecodable":    {content: "application/grpc", body: enveloped(broken), series: "{code=grpc_3,protocol=grpc}", unhandled: true},
		"grpc no codec":       {content: "application/grpc+xml", body: enveloped(""), series: "{code=415,protocol=grpc}", unhandled: true},
		"web":                 {content: "application/grpc-web+proto", body: enveloped(""), series: "{code=200,protocol=grpc_web}"},
		"web undecodable":     {content: "application/grpc-web+proto", body: enveloped(broken), series: "{code=grpc_3,protocol=grpc_web}", unhandled: true},
		"connect":             {content: "application/json", body: "{}", series: "{code=200,protocol=connect}"},
		"connect failure":     {content: "application/json", body: "{}", fail: "1", series: "{code=404,protocol=connect}"},
		"connect undecodable": {content: "application/json", body: "{", series: "{code=400,protocol=connect}", unhandled: true},
		"connect get":         {method: http.MethodGet, path: "/x.Y/Z?connect=v1&encoding=json&message=%7B%7D", series: "{code=200,protocol=connect}"},
		"wrong method":        {method: http.MethodPut, content: "application/json", series: "{code=405,protocol=other}", unhandled: true},
		"no such path":        {method: http.MethodGet, path: "/wp-login.php", series: "{code=404,protocol=other}", unhandled: true},
		"no such route":       {method: http.MethodGet, path: "/api/v1/nothing", series: "{code=404,protocol=rest}", unhandled: true},
	} {
		m := telemetry.NewMetrics(telemetry.Build{})
		server := countedServer(t, m)
		method, path := c.method, c.path
		if method == "" {
			method = http.MethodPost
		}
		if path == "" {
			path = "/x.Y/Z"
		}
		r, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", c.content)
		r.Header.Set("Fail", c.fail)
		client := &http.Client{Transport: &http.Transport{Protocols: server.Config.Protocols}}
		if strings.HasPrefix(c.content, "application/grpc") {
			only := new(http.Protocols)
			only.SetUnencryptedHTTP2(true)
			client.Transport = &http.Transport{Protocols: only}
		}
		res, err := client.Do(r)
		if err != nil {
			t.Fatalf("%s: got %v", name, err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		client.CloseIdleConnections()
		server.Close() // waits for the handler
		all := gathered(t, m.Gatherer())
		if all["userd_http_requests_total"+c.series] != 1 {
			t.Errorf("%s: series %v, want one of %s", name, httpSeries(all), c.series)
		}
		if got := all["userd_http_unhandled_total"+c.series] == 1; got != c.unhandled {
			t.Errorf("%s: unhandled = %v, want %v", name, got, c.unhandled)
		}
	}
}

func httpSeries(all map[string]float64) map[string]float64 {
	for name, value := range all {
		if value == 0 || !strings.HasPrefix(name, "userd_http") {
			delete(all, name)
		}
	}
	return all
}

func TestHTTPCodesAreBounded(t *testing.T) {
	m := telemetry.NewMetrics(telemetry.Build{})
	nowhere := &url.URL{Path: "/"}
	for status := -1; status < 2000; status++ {
		m.HTTPDone(&http.Request{Method: http.MethodPost, URL: nowhere, Header: http.Header{"Content-Type": {"application/grpc"}}}, status, nil, false)
	}
	for _, code := range []string{"", "-1", "0", "17", "99999999999999999999", "x"} {
		m.HTTPDone(&http.Request{URL: nowhere}, 200, http.Header{"Grpc-Status": {code}}, true)
	}
	all := gathered(t, m.Gatherer())
	codes := 0
	for name := range all {
		if strings.HasPrefix(name, "userd_http_unhandled_total") && strings.Contains(name, "protocol=grpc}") {
			codes++
		}
	}
	if codes != 501 {
		t.Errorf("got %d codes, want 500 and other", codes)
	}
	want(t, all, "userd_http_unhandled_total{code=other,protocol=grpc}", 1501)
	want(t, all, "userd_http_requests_total{code=200,protocol=other}", 6)
}

func BenchmarkHTTPDone(b *testing.B) {
	m := telemetry.NewMetrics(telemetry.Build{})
	r := httptest.NewRequestWithContext(b.Context(), http.MethodPost, "/user.v1.UserService/GetUser", http.NoBody)
	r.Header.Set("Content-Type", "application/grpc")
	header := http.Header{http.TrailerPrefix + "Grpc-Status": {"0"}}
	b.ReportAllocs()
	for b.Loop() {
		m.HTTPDone(r, http.StatusOK, header, true)
	}
}
