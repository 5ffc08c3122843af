package sqlite

import (
	"path/filepath"
	"testing"

	"github.com/yourorg/userservice/service/fair"
)

// A point read keeps the slot of its request, a scan releases it.
func TestSlotDuringReads(t *testing.T) {
	s := openTest(t, filepath.Join(t.TempDir(), "users.db"))
	var slot fair.Slot
	slot.Open(fair.NewScheduler(), "caller")
	defer slot.Close()
	ctx := fair.NewContext(t.Context(), &slot)
	slot.Acquire()
	held := false
	look := func() {
		held = slot.Release()
		slot.Resume(held)
	}
	if _, err := read(ctx, s.pool, func(*reader) (int, error) { look(); return 0, nil }); err != nil || !held {
		t.Errorf("during a point read the slot is held = %t, %v; want true", held, err)
	}
	if err := scan(ctx, s.pool, func(*reader) (bool, error) { look(); return true, nil }); err != nil || held {
		t.Errorf("during a scan the slot is held = %t, %v; want false", held, err)
	}
	if !slot.Release() {
		t.Error("the slot is not held after a scan")
	}
}
