package auth_test

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/yourorg/userservice/service/auth"
)

// keyServer is an http.RoundTripper that serves a JWK set.
type keyServer struct {
	mu      sync.Mutex
	body    []byte
	err     error
	reads   int
	atOnce  int // reads in progress
	most    int // maximum of atOnce
	latency time.Duration
}

func (s *keyServer) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	s.reads++
	s.atOnce++
	s.most = max(s.most, s.atOnce)
	body, err, latency := s.body, s.err, s.latency
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.atOnce--
		s.mu.Unlock()
	}()
	select {
	case <-time.After(latency):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	if err != nil {
		return nil, err
	}
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{}, Request: r,
		Body: io.NopCloser(strings.NewReader(string(body))),
	}, nil
}

func (s *keyServer) serve(keys map[string]crypto.Signer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.body, s.err = jwks(keys), nil
}

func (s *keyServer) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *keyServer) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reads
}

// runKeys runs keys from s until the test ends.
func runKeys(t *testing.T, s *keyServer, log *logged) *auth.Verifier {
	t.Helper()
	keys, err := auth.NewKeys(auth.KeysOptions{
		Location: "https://issuer.example/keys", Client: &http.Client{Transport: s}, Logger: log.logger(),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { keys.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	synctest.Wait()
	return verifierOf(t, keys, nil)
}

func tokenOf(keyID string) string {
	return sign(edKey(), "EdDSA", head("EdDSA", keyID), goodClaims(time.Now()))
}

// A flood of tokens with unknown key ids causes one reload per cool-down, delays no periodic
// reload, and does not prevent key rotation.
func TestFloodOfUnknownKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &keyServer{latency: time.Second}
		s.serve(map[string]crypto.Signer{"old": edKey()})
		time.Sleep(time.Minute) // keeps iat after the start of the bubble's clock
		v := runKeys(t, s, new(logged))
		time.Sleep(2 * time.Second)
		if got := cause(t.Context(), v, tokenOf("old")); got != "" {
			t.Fatalf("cause = %q", got)
		}
		if s.count() != 1 {
			t.Fatalf("%d reads at start, want 1", s.count())
		}

		var invented [20]string
		for i := range invented {
			invented[i] = tokenOf(fmt.Sprint("invented-", i))
		}
		// Ten callers, twice a second, for ten minutes.
		ctx, stop := context.WithTimeout(t.Context(), 10*time.Minute)
		defer stop()
		var flood sync.WaitGroup
		for i := range 10 {
			flood.Go(func() {
				ticker := time.NewTicker(500 * time.Millisecond)
				defer ticker.Stop()
				for n := 0; ; n++ {
					if got := cause(ctx, v, invented[(i+n)%len(invented)]); got != auth.CauseUnknownKey {
						t.Errorf("cause = %q", got)
						return
					}
					select {
					case <-ticker.C:
					case <-ctx.Done():
						return
					}
				}
			})
		}
		time.Sleep(5 * time.Minute)
		s.serve(map[string]crypto.Signer{"new": edKey()}) // rotate the keys during the flood
		time.Sleep(31 * time.Second)
		if got := cause(ctx, v, tokenOf("new")); got != "" {
			t.Errorf("new key: cause = %q", got)
		}
		if got := cause(ctx, v, tokenOf("old")); got != auth.CauseUnknownKey {
			t.Errorf("old key: cause = %q", got)
		}
		flood.Wait()
		// Ten minutes have 20 cool-downs of 30 s and one periodic reload.
		if reads := s.count() - 1; reads > 22 {
			t.Errorf("%d reads in 10 min, want at most 22", reads)
		}
		if s.most != 1 {
			t.Errorf("%d concurrent reads, want 1", s.most)
		}
	})
}

// Reloads for unknown key ids do not delay the periodic reload.
func TestPeriodicReloadIsIndependentOfCooldown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(keyServer)
		s.serve(map[string]crypto.Signer{"old": edKey()})
		keys, err := auth.NewKeys(auth.KeysOptions{
			Location: "https://issuer.example/keys", Client: &http.Client{Transport: s}, Logger: new(logged).logger(),
			Refresh: time.Minute, Cooldown: time.Hour,
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { keys.Run(ctx) })
		defer running.Wait()
		defer cancel()
		synctest.Wait()
		v := verifierOf(t, keys, nil)
		for range 100 {
			cause(ctx, v, tokenOf("invented"))
		}
		if got := s.count(); got != 2 {
			t.Fatalf("%d reads, want 2", got)
		}
		s.serve(map[string]crypto.Signer{"new": edKey()})
		if got := cause(ctx, v, tokenOf("new")); got != auth.CauseUnknownKey {
			t.Fatalf("during the cool-down: cause = %q", got)
		}
		time.Sleep(61 * time.Second)
		if got := cause(ctx, v, tokenOf("new")); got != "" {
			t.Errorf("after the refresh interval: cause = %q", got)
		}
	})
}

// Keys stay valid for an hour without a successful reload. Then tokens are rejected until a
// reload succeeds.
func TestStaleKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, log := new(keyServer), new(logged)
		s.serve(map[string]crypto.Signer{"ed": edKey()})
		v := runKeys(t, s, log)
		s.fail(errors.New("connection refused"))
		time.Sleep(59 * time.Minute)
		if got := cause(t.Context(), v, tokenOf("ed")); got != "" {
			t.Errorf("before MaxStale: cause = %q", got)
		}
		if !strings.Contains(log.String(), "connection refused") {
			t.Error("failed reload is not logged")
		}
		time.Sleep(2 * time.Minute)
		if got := cause(t.Context(), v, tokenOf("ed")); got != auth.CauseNoKeys {
			t.Errorf("after MaxStale: cause = %q", got)
		}
		s.serve(map[string]crypto.Signer{"ed": edKey()})
		time.Sleep(31 * time.Second)
		if got := cause(t.Context(), v, tokenOf("ed")); got != "" {
			t.Errorf("after a successful reload: cause = %q", got)
		}
	})
}

func TestKeyReloadTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &keyServer{latency: time.Hour}
		v := runKeys(t, s, new(logged))
		began := time.Now()
		if got := cause(t.Context(), v, tokenOf("ed")); got != auth.CauseNoKeys {
			t.Errorf("cause = %q", got)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("Verify took %v, want at most 5s", took)
		}
	})
}

// Cancelling the request that started a reload does not fail other requests.
func TestReloadOutlivesItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(keyServer)
		s.serve(map[string]crypto.Signer{"old": edKey()})
		v := runKeys(t, s, new(logged))
		s.serve(map[string]crypto.Signer{"new": edKey()})
		s.mu.Lock()
		s.latency = 2 * time.Second
		s.mu.Unlock()
		var calls sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		calls.Go(func() { cause(ctx, v, tokenOf("new")) })
		time.Sleep(time.Second)
		calls.Go(func() {
			if got := cause(t.Context(), v, tokenOf("new")); got != "" {
				t.Errorf("cause = %q", got)
			}
		})
		synctest.Wait()
		cancel()
		calls.Wait()
	})
}

// A key removed from the set is rejected, also for cached tokens.
func TestRevokedKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(keyServer)
		s.serve(map[string]crypto.Signer{"a": edKey(), "b": ecKey()})
		v := runKeys(t, s, new(logged))
		token := tokenOf("a")
		if got := cause(t.Context(), v, token); got != "" {
			t.Fatalf("cause = %q", got)
		}
		s.serve(nil)
		time.Sleep(10*time.Minute + time.Second)
		if got := cause(t.Context(), v, token); got != auth.CauseUnknownKey {
			t.Errorf("cause = %q", got)
		}
	})
}

func TestKeysFromAFile(t *testing.T) {
	path := writeFile(t, "jwks.json", jwks(map[string]crypto.Signer{"old": edKey()}))
	synctest.Test(t, func(t *testing.T) {
		log := new(logged)
		keys, err := auth.NewKeys(auth.KeysOptions{Location: path, Logger: log.logger()})
		if err != nil {
			t.Fatal(err)
		}
		if err := keys.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { keys.Run(ctx) })
		defer running.Wait()
		defer cancel()
		v := verifierOf(t, keys, nil)
		write := func(body []byte) {
			if err := os.WriteFile(path, body, 0o600); err != nil {
				t.Fatal(err)
			}
			time.Sleep(6 * time.Second)
		}
		write([]byte(`{"keys": [{"kty": "RSA", "n": "half a fi`))
		if got := cause(ctx, v, tokenOf("old")); got != "" {
			t.Errorf("partially written file: cause = %q", got)
		}
		write(jwks(map[string]crypto.Signer{"new": edKey()}))
		if got := cause(ctx, v, tokenOf("new")); got != "" {
			t.Errorf("new key: cause = %q", got)
		}
		if got := cause(ctx, v, tokenOf("old")); got != auth.CauseUnknownKey {
			t.Errorf("old key: cause = %q", got)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(61 * time.Minute)
		if got := cause(ctx, v, tokenOf("new")); got != auth.CauseNoKeys {
			t.Errorf("file removed: cause = %q", got)
		}
	})
}

func TestKeysLocation(t *testing.T) {
	for location, want := range map[string]bool{
		"https://issuer.example/keys":       true,
		"http://127.0.0.1:8081/keys":        true,
		"http://[::1]:8081/keys":            true,
		"http://localhost/keys":             true,
		"keys.json":                         true,
		"http://issuer.example/keys":        false,
		"http://127.0.0.1.issuer.example/":  false,
		"ftp://issuer.example/keys":         false,
		"https://ann:secret@issuer.example": false,
		"https://":                          false,
		"":                                  false,
	} {
		_, err := auth.NewKeys(auth.KeysOptions{Location: location, Logger: new(logged).logger()})
		if (err == nil) != want {
			t.Errorf("NewKeys(%q) error = %v", location, err)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("error contains the password: %v", err)
		}
	}
}

// Redirects, large bodies and HTTP errors are rejected.
func TestBadKeysResponses(t *testing.T) {
	good := jwks(map[string]crypto.Signer{"ed": edKey()})
	mux := http.NewServeMux()
	mux.HandleFunc("/good", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(good) })
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/good", http.StatusFound) })
	mux.HandleFunc("/broken", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadGateway)
		_, _ = w.Write(good)
	})
	mux.HandleFunc("/endless", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(strings.Repeat(" ", 1<<20)))
		_, _ = w.Write(good)
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	for path, want := range map[string]string{
		"/good": "", "/moved": "302", "/broken": "502", "/endless": "larger than", "/none": "404",
	} {
		keys, err := auth.NewKeys(auth.KeysOptions{Location: server.URL + path, Logger: new(logged).logger()})
		if err != nil {
			t.Fatal(err)
		}
		err = keys.Load(t.Context())
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("Load() of %s = %v, want %q", path, err, want)
		}
	}
}
