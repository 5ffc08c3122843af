package auth_test

import (
	"context"
	"crypto"
	"errors"
	"log/slog"
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

// Concurrent tokens with an unknown key id cause one reload for each cool-down.
func TestOneReloadPerCooldown(t *testing.T) {
	s := new(keyServer)
	s.serve(map[string]crypto.Signer{"old": edKey()})
	keys, err := auth.NewKeys(auth.KeysOptions{
		Location: "https://issuer.example/keys", Client: &http.Client{Transport: s}, Logger: new(logged).logger(),
		Cooldown: time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := keys.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	v := verifierOf(t, keys, nil)
	token := tokenOf("invented")
	var calls sync.WaitGroup
	for range 200 {
		calls.Go(func() { cause(t.Context(), v, token) })
	}
	calls.Wait()
	if got := s.count(); got != 2 {
		t.Errorf("%d reads, want 2", got)
	}
}

// After a failed load the next reload waits for Retry. Concurrent loads share the failure.
func TestFailedLoadRetriesAfterDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, log := &keyServer{latency: time.Second}, new(logged)
		s.fail(errors.New("connection refused"))
		keys, err := auth.NewKeys(auth.KeysOptions{
			Location: "https://issuer.example/keys", Client: &http.Client{Transport: s}, Logger: log.logger(),
		})
		if err != nil {
			t.Fatal(err)
		}
		var joined error
		var loading sync.WaitGroup
		loading.Go(func() {
			if err := keys.Load(t.Context()); err == nil {
				t.Error("Load() = nil, want error")
			}
		})
		synctest.Wait()
		loading.Go(func() { joined = keys.Load(t.Context()) })
		loading.Wait()
		if joined == nil || s.count() != 1 {
			t.Errorf("second Load() = %v after %d reads, want an error after 1", joined, s.count())
		}
		if keys.Err() == nil || !strings.Contains(log.String(), "tokens cannot be verified") {
			t.Errorf("Err() = %v, log: %s", keys.Err(), log)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { keys.Run(ctx) })
		defer running.Wait()
		defer cancel()
		time.Sleep(29 * time.Second)
		if got := s.count(); got != 1 {
			t.Errorf("%d reads within 30 s, want 1", got)
		}
		s.serve(map[string]crypto.Signer{"old": edKey()})
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if err := keys.Err(); s.count() != 2 || err != nil {
			t.Errorf("%d reads after 30 s, Err() = %v", s.count(), err)
		}
	})
}

func TestKeysFileMustBeRegular(t *testing.T) {
	keys, err := auth.NewKeys(auth.KeysOptions{Location: os.DevNull, Logger: new(logged).logger()})
	if err != nil {
		t.Fatal(err)
	}
	if err := keys.Load(t.Context()); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("Load() = %v, want a regular file error", err)
	}
}

// The server certificate of the JWKS URL is verified.
func TestKeysOverTLS(t *testing.T) {
	body := jwks(map[string]crypto.Signer{"ed": edKey()})
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) }))
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	server.StartTLS()
	defer server.Close()
	for name, client := range map[string]*http.Client{"known": server.Client(), "unknown": nil} {
		keys, err := auth.NewKeys(auth.KeysOptions{Location: server.URL, Client: client, Logger: new(logged).logger()})
		if err != nil {
			t.Fatal(err)
		}
		err = keys.Load(t.Context())
		if (err == nil) != (name == "known") || err != nil && !strings.Contains(err.Error(), "certificate") {
			t.Errorf("Load() of %s = %v", name, err)
		}
		if got := cause(t.Context(), verifierOf(t, keys, nil), tokenOf("ed")); (got == "") != (name == "known") {
			t.Errorf("%s: cause = %q", name, got)
		}
	}
}
