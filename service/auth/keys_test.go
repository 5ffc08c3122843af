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

// keyServer answers for the place where keys are, without a network.
type keyServer struct {
	mu      sync.Mutex
	body    []byte
	err     error
	reads   int
	atOnce  int // reads that go on
	most    int // reads that went on at once
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

// runKeys runs keys from a server until the test ends.
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

// However many tokens name keys that there are not, the set is read once in a
// cool-down; the period goes on beside it; and a new key is seen nevertheless.
func TestFloodOfUnknownKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &keyServer{latency: time.Second}
		s.serve(map[string]crypto.Signer{"old": edKey()})
		time.Sleep(time.Minute) // the bubble's clock; so that iat is not its first moment
		v := runKeys(t, s, new(logged))
		time.Sleep(2 * time.Second)
		if got := cause(t.Context(), v, tokenOf("old")); got != "" {
			t.Fatalf("refused for %q", got)
		}
		if s.count() != 1 {
			t.Fatalf("%d reads at first", s.count())
		}

		var invented [20]string
		for i := range invented {
			invented[i] = tokenOf(fmt.Sprint("invented-", i))
		}
		// A hundred callers, twice a second, for ten minutes.
		ctx, stop := context.WithTimeout(t.Context(), 10*time.Minute)
		defer stop()
		var flood sync.WaitGroup
		for i := range 100 {
			flood.Go(func() {
				ticker := time.NewTicker(500 * time.Millisecond)
				defer ticker.Stop()
				for n := 0; ; n++ {
					if got := cause(ctx, v, invented[(i+n)%len(invented)]); got != auth.CauseUnknownKey {
						t.Errorf("refused for %q", got)
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
		s.serve(map[string]crypto.Signer{"new": edKey()}) // the keys rotate amid the flood
		time.Sleep(31 * time.Second)
		if got := cause(ctx, v, tokenOf("new")); got != "" {
			t.Errorf("the new key is not known: refused for %q", got)
		}
		if got := cause(ctx, v, tokenOf("old")); got != auth.CauseUnknownKey {
			t.Errorf("the old key: refused for %q", got)
		}
		flood.Wait()
		// Ten minutes have twenty cool-downs of 30 s, and one period.
		if reads := s.count() - 1; reads > 22 {
			t.Errorf("%d reads in ten minutes", reads)
		}
		if s.most != 1 {
			t.Errorf("%d reads at once", s.most)
		}
	})
}

// A flood that has used the cool-down up does not hold the period back.
func TestPeriodHasBudgetOfItsOwn(t *testing.T) {
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
			t.Fatalf("%d reads", got)
		}
		s.serve(map[string]crypto.Signer{"new": edKey()})
		if got := cause(ctx, v, tokenOf("new")); got != auth.CauseUnknownKey {
			t.Fatalf("within the cool-down: refused for %q", got)
		}
		time.Sleep(61 * time.Second)
		if got := cause(ctx, v, tokenOf("new")); got != "" {
			t.Errorf("after a period: refused for %q", got)
		}
	})
}

// Keys that cannot be read again count for an hour. Then every token is refused, and
// when they can be read again, none has to be restarted.
func TestStaleKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, log := new(keyServer), new(logged)
		s.serve(map[string]crypto.Signer{"ed": edKey()})
		v := runKeys(t, s, log)
		s.fail(errors.New("connection refused"))
		time.Sleep(59 * time.Minute)
		if got := cause(t.Context(), v, tokenOf("ed")); got != "" {
			t.Errorf("stale, within the bound: refused for %q", got)
		}
		if !strings.Contains(log.String(), "connection refused") {
			t.Error("the failure is not in the log")
		}
		time.Sleep(2 * time.Minute)
		if got := cause(t.Context(), v, tokenOf("ed")); got != auth.CauseNoKeys {
			t.Errorf("beyond the bound: refused for %q", got)
		}
		s.serve(map[string]crypto.Signer{"ed": edKey()})
		time.Sleep(31 * time.Second)
		if got := cause(t.Context(), v, tokenOf("ed")); got != "" {
			t.Errorf("read again: refused for %q", got)
		}
	})
}

// A place that never answers holds nobody longer than one read may take.
func TestKeysThatDoNotCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &keyServer{latency: time.Hour}
		v := runKeys(t, s, new(logged))
		began := time.Now()
		if got := cause(t.Context(), v, tokenOf("ed")); got != auth.CauseNoKeys {
			t.Errorf("refused for %q", got)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// Who caused a read and goes away does not take it from those who wait for it too.
func TestReadOutlivesWhoCausedIt(t *testing.T) {
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
				t.Errorf("refused for %q", got)
			}
		})
		synctest.Wait()
		cancel()
		calls.Wait()
	})
}

// A key that was taken out of the set signs nothing any more, not even what was
// remembered; an empty set lets nobody in.
func TestRevokedKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(keyServer)
		s.serve(map[string]crypto.Signer{"a": edKey(), "b": ecKey()})
		v := runKeys(t, s, new(logged))
		token := tokenOf("a")
		if got := cause(t.Context(), v, token); got != "" {
			t.Fatalf("refused for %q", got)
		}
		s.serve(nil)
		time.Sleep(10*time.Minute + time.Second)
		if got := cause(t.Context(), v, token); got != auth.CauseUnknownKey {
			t.Errorf("refused for %q", got)
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
			t.Errorf("while the file is being written: refused for %q", got)
		}
		write(jwks(map[string]crypto.Signer{"new": edKey()}))
		if got := cause(ctx, v, tokenOf("new")); got != "" {
			t.Errorf("the new key: refused for %q", got)
		}
		if got := cause(ctx, v, tokenOf("old")); got != auth.CauseUnknownKey {
			t.Errorf("the old key: refused for %q", got)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(61 * time.Minute)
		if got := cause(ctx, v, tokenOf("new")); got != auth.CauseNoKeys {
			t.Errorf("without the file: refused for %q", got)
		}
	})
}

func TestWhereKeysMayBe(t *testing.T) {
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
			t.Errorf("%q: %v", location, err)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the error repeats a password: %v", err)
		}
	}
}

// What a place of keys answers is not followed, not read without end and not believed
// when it is an error.
func TestBadPlacesOfKeys(t *testing.T) {
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
		"/good": "", "/moved": "302", "/broken": "502", "/endless": "more than", "/none": "404",
	} {
		keys, err := auth.NewKeys(auth.KeysOptions{Location: server.URL + path, Logger: new(logged).logger()})
		if err != nil {
			t.Fatal(err)
		}
		err = keys.Load(t.Context())
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
}
