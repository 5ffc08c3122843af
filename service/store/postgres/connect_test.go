package postgres

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/yourorg/userservice/service/store/pgtest"
	"github.com/yourorg/userservice/service/user"
)

// A server that may lose acknowledged writes is logged.
func TestUnsafeSettingsAreLogged(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	for params, want := range map[string]bool{"": false, "&synchronous_commit=off": true, "&synchronous_commit=local": false} {
		var log bytes.Buffer
		s, err := Open(t.Context(), Options{URL: url + params, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if got := strings.Contains(log.String(), "may lose acknowledged writes"); got != want {
			t.Errorf("log of Open(%q) = %q, want a warning: %t", params, log.String(), want)
		}
	}
}

// Reads that hang fail after their timeout, and other callers get connections in turn. Reads of the background and writes
// have connections of their own.
func TestReadsHang(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	n := openNode(t, Options{URL: url + "&pool_max_conns=6", readTimeout: 300 * time.Millisecond})
	created, err := n.create(t.Context(), "ann", 0)
	if err != nil {
		t.Fatal(err)
	}
	unlock := lockUsers(t, url)
	var reads sync.WaitGroup
	var mu sync.Mutex
	reasons := make(map[user.Reason]int)
	for range 8 {
		reads.Go(func() {
			_, err := n.Get(user.WithCaller(t.Context(), "hanging"), created.User.ID)
			mu.Lock()
			defer mu.Unlock()
			for _, reason := range []user.Reason{user.StoreUnavailable, user.Overloaded} {
				if user.HasReason(err, reason) {
					reasons[reason]++
				}
			}
		})
	}
	if _, err := n.Log(t.Context(), user.LogQuery{MaxRows: 1}); err != nil {
		t.Errorf("Log in the background = %v, want success", err)
	}
	if err := n.Probe(t.Context()); err != nil {
		t.Errorf("Probe = %v, want success", err)
	}
	reads.Wait()
	if reasons[user.StoreUnavailable] == 0 || reasons[user.Overloaded] == 0 || reasons[user.StoreUnavailable]+reasons[user.Overloaded] != 8 {
		t.Errorf("reasons of 8 reads = %v, want STORE_UNAVAILABLE with a connection, OVERLOADED without", reasons)
	}
	unlock()
	if _, err := n.Get(user.WithCaller(t.Context(), "other"), created.User.ID); err != nil {
		t.Errorf("Get afterwards = %v, want success", err)
	}
}
