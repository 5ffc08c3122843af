package health

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/grpchealth"

	"github.com/yourorg/userservice/service/user"
)

// nopStore is a store that only supports probes.
type nopStore struct {
	user.Store

	readsFail, writesFail *atomic.Bool
}

func (s nopStore) Log(context.Context, user.LogQuery) (user.LogPage, error) {
	if s.readsFail.Load() {
		return user.LogPage{}, errors.New("no reads")
	}
	return user.LogPage{}, nil
}

func (s nopStore) Probe(context.Context) error {
	if s.writesFail.Load() {
		return errors.New("no writes")
	}
	return nil
}

func TestHealthFollowsStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		store := nopStore{readsFail: new(atomic.Bool), writesFail: new(atomic.Bool)}
		h := New(func() user.Head { return user.Head{Epoch: "e", Position: 7} })
		var changes atomic.Int64
		stop, err := h.Watch(ctx, &grpchealth.CheckRequest{Service: Writes}, func() { changes.Add(1) })
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
		expect := func(reads, writes grpchealth.Status) {
			t.Helper()
			for name, want := range map[string]grpchealth.Status{Server: reads, Reads: reads, Writes: writes} {
				got, err := h.Check(ctx, &grpchealth.CheckRequest{Service: name})
				if err != nil || got.Status != want {
					t.Errorf("%q: got %v, %v, want %v", name, got, err, want)
				}
			}
			all := reads == grpchealth.StatusServing && writes == grpchealth.StatusServing
			if ok, why := h.Ready(); ok != (reads == grpchealth.StatusServing) || (why == "") != all {
				t.Errorf("ready: got %v, %q", ok, why)
			}
		}
		const up, down = grpchealth.StatusServing, grpchealth.StatusNotServing
		expect(down, down) // not probed yet

		writeFailures := make(chan struct{}, 1)
		p := &Prober{Store: store, WriteFailures: writeFailures, Health: h, Log: slog.New(slog.DiscardHandler)}
		go p.Run(ctx)
		synctest.Wait()
		expect(up, up)

		after := func(change func()) {
			before := changes.Load()
			change()
			time.Sleep(probeInterval)
			synctest.Wait()
			if changes.Load() == before {
				t.Error("watcher was not notified")
			}
		}
		after(func() { store.writesFail.Store(true) })
		expect(up, down)
		after(func() { store.readsFail.Store(true) })
		expect(down, down)
		after(func() { store.readsFail.Store(false); store.writesFail.Store(false) })
		expect(up, up)

		// A write failure triggers a probe at once.
		store.writesFail.Store(true)
		writeFailures <- struct{}{}
		synctest.Wait()
		expect(up, down)
		writeFailures <- struct{}{}
		synctest.Wait()
		after(func() { store.writesFail.Store(false) })
		expect(up, up)

		after(h.Drain)
		expect(down, down)
		time.Sleep(probeInterval) // a successful probe changes nothing while draining
		synctest.Wait()
		expect(down, down)

		after(h.EndWatches)
		_, err = h.watchStatus(ctx, Server)
		if !user.HasReason(err, user.ServerDraining) {
			t.Errorf("watchStatus after EndWatches = %v, want SERVER_DRAINING", err)
		}
	})
}

// deafStore ignores contexts and blocks until let is closed.
type deafStore struct {
	user.Store

	asked *atomic.Int64
	let   chan struct{}
}

func (s deafStore) Log(context.Context, user.LogQuery) (user.LogPage, error) {
	s.asked.Add(1)
	<-s.let
	return user.LogPage{}, nil
}

func (s deafStore) Probe(ctx context.Context) error {
	_, err := s.Log(ctx, user.LogQuery{})
	return err
}

// Health reports a hanging store, probes it only once, and recovers with it.
func TestHealthOfHangingStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		store := deafStore{asked: new(atomic.Int64), let: make(chan struct{})}
		h := New(func() user.Head { return user.Head{} })
		p := &Prober{Store: store, Health: h, Log: slog.New(slog.DiscardHandler)}
		go p.Run(ctx)
		time.Sleep(time.Minute)
		synctest.Wait()
		want := "reads: probe timed out after 3s\nwrites: probe timed out after 3s"
		if ok, why := h.Ready(); ok || why != want {
			t.Errorf("ready = %v, %q, want %q", ok, why, want)
		}
		if n := store.asked.Load(); n != 2 {
			t.Errorf("probed %d times, want once for reads and once for writes", n)
		}
		close(store.let)
		time.Sleep(probeTimeout + probeRetryInterval)
		synctest.Wait()
		if ok, why := h.Ready(); !ok || why != "" {
			t.Errorf("ready after recovery = %v, %q, want true", ok, why)
		}
	})
}

// panickingStore panics in the first reads.
type panickingStore struct {
	nopStore

	panics, reads int
}

func (s *panickingStore) Log(ctx context.Context, query user.LogQuery) (user.LogPage, error) {
	if s.reads++; s.reads <= s.panics {
		panic("planted")
	}
	return s.nopStore.Log(ctx, query)
}

// A panic fails one probe only.
func TestPanicInProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		store := &panickingStore{nopStore: nopStore{readsFail: new(atomic.Bool), writesFail: new(atomic.Bool)}, panics: 2}
		h := New(func() user.Head { return user.Head{} })
		(&Prober{Store: store, Health: h, Log: slog.New(slog.DiscardHandler)}).Run(ctx)
		if store.reads < 4 || !h.ServesReads() {
			t.Errorf("after %d reads, reads are served = %t, want true", store.reads, h.ServesReads())
		}
	})
}
