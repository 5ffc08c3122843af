package server

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

// nopStore is a store that can do nothing but be asked how it is.
type nopStore struct {
	user.Store

	readsFail, writesFail *atomic.Bool
}

func (s nopStore) First(context.Context) (int64, error) {
	if s.readsFail.Load() {
		return 0, errors.New("no reads")
	}
	return 1, nil
}

func (s nopStore) Probe(context.Context) error {
	if s.writesFail.Load() {
		return errors.New("no writes")
	}
	return nil
}

func TestHealthFollowsTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		store := nopStore{readsFail: new(atomic.Bool), writesFail: new(atomic.Bool)}
		h := newHealth(func() user.Head { return user.Head{Epoch: "e", Position: 7} })
		var changes atomic.Int64
		stop, err := h.Watch(ctx, &grpchealth.CheckRequest{Service: healthWrites}, func() { changes.Add(1) })
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
		expect := func(reads, writes grpchealth.Status) {
			t.Helper()
			for name, want := range map[string]grpchealth.Status{healthWhole: reads, healthReads: reads, healthWrites: writes} {
				got, err := h.Check(ctx, &grpchealth.CheckRequest{Service: name})
				if err != nil || got.Status != want {
					t.Errorf("%q: got %v, %v, want %v", name, got, err, want)
				}
			}
			all := reads == grpchealth.StatusServing && writes == grpchealth.StatusServing
			if ok, why := h.ready(); ok != (reads == grpchealth.StatusServing) || (why == "") != all {
				t.Errorf("ready: got %v, %q", ok, why)
			}
		}
		const up, down = grpchealth.StatusServing, grpchealth.StatusNotServing
		expect(down, down) // nobody has asked the store yet

		trouble := make(chan struct{}, 1)
		p := &prober{store: store, trouble: trouble, health: h, log: slog.New(slog.DiscardHandler)}
		go p.run(ctx)
		synctest.Wait()
		expect(up, up)

		after := func(change func()) {
			before := changes.Load()
			change()
			time.Sleep(probeEvery)
			synctest.Wait()
			if changes.Load() == before {
				t.Error("the watcher was not told")
			}
		}
		after(func() { store.writesFail.Store(true) })
		expect(up, down)
		after(func() { store.readsFail.Store(true) })
		expect(down, down)
		after(func() { store.readsFail.Store(false); store.writesFail.Store(false) })
		expect(up, up)

		// Trouble is looked into at once.
		store.writesFail.Store(true)
		trouble <- struct{}{}
		synctest.Wait()
		expect(up, down)
		trouble <- struct{}{}
		synctest.Wait()
		after(func() { store.writesFail.Store(false) })
		expect(up, up)

		after(h.drain)
		expect(down, down)
		time.Sleep(probeEvery) // a probe that finds all well changes nothing now
		synctest.Wait()
		expect(down, down)

		after(h.endWatches)
		_, err = h.Check(ctx, &grpchealth.CheckRequest{})
		if !user.HasReason(err, user.ServerDraining) {
			t.Errorf("when the watches have ended: got %v", err)
		}
	})
}
