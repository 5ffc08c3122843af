package server_test

import (
	"net/http"
	"testing"

	"github.com/yourorg/userservice/service/server"
	"github.com/yourorg/userservice/service/servertest"
)

// Each client of a trusted proxy has its own rate. Without a trusted proxy, clients share the rate of the peer
// address and forwarding headers are ignored.
func TestLimitsByClientAddress(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		trusted []string
		want    int // of a second client's first request
	}{
		"trusted": {[]string{"127.0.0.0/8"}, http.StatusOK}, "not trusted": {nil, http.StatusTooManyRequests},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := servertest.Start(t, servertest.Parallel(), servertest.Config(func(c *server.Config) {
				c.MaxRequestsPerSecond, c.MaxRequestBurst = 1, 1
				c.TrustedProxy = test.trusted
			}))
			ask := func(client string) int {
				t.Helper()
				request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://userd.test/api/v1/users", http.NoBody)
				if err != nil {
					t.Fatal(err)
				}
				request.Header.Set("X-Forwarded-For", client)
				got, err := s.HTTP(false).Do(request)
				if err != nil {
					t.Fatal(err)
				}
				_ = got.Body.Close()
				return got.StatusCode
			}
			if got := ask("203.0.113.7"); got != http.StatusOK {
				t.Errorf("the first client's first request = %d, want 200", got)
			}
			if got := ask("203.0.113.7"); got != http.StatusTooManyRequests {
				t.Errorf("the first client's second request = %d, want 429", got)
			}
			if got := ask("203.0.113.8"); got != test.want {
				t.Errorf("the second client's first request = %d, want %d", got, test.want)
			}
		})
	}
}

func TestTrustedProxyIsExemptFromConnectionLimit(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		trusted []string
		served  bool
	}{
		"trusted": {[]string{"127.0.0.1"}, true}, "not trusted": {nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := servertest.Start(t, servertest.Parallel(), servertest.Config(func(c *server.Config) {
				c.MaxConnectionsPerPeer, c.TrustedProxy = 1, test.trusted
			}))
			first := &http.Transport{}
			defer first.CloseIdleConnections()
			served := 0
			for _, transport := range []*http.Transport{first, {DisableKeepAlives: true}} {
				request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL()+"/api/v1/users", http.NoBody)
				if err != nil {
					t.Fatal(err)
				}
				if got, err := transport.RoundTrip(request); err == nil {
					defer func() { _ = got.Body.Close() }() //nolint:gocritic // keeps the connection until the end of the test
					if got.StatusCode == http.StatusOK {
						served++
					}
				}
			}
			if got := served == 2; got != test.served {
				t.Errorf("%d of 2 connections are served, want both: %t", served, test.served)
			}
		})
	}
}
