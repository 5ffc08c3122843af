package feed

import (
	"maps"
	"math/rand/v2"
	"testing"
)

// A userMap has the users of a map after the same changes.
func TestUserMap(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var got userMap[int]
		want := make(map[int64]int)
		for range 20 {
			id, value := 1+random.Int64N(3), random.IntN(1000)
			if random.IntN(2) == 0 {
				got.set(id, value)
				want[id] = value
			} else {
				got.delete(id)
				delete(want, id)
			}
			if all := maps.Collect(got.all()); !maps.Equal(all, want) || got.len() != len(want) {
				t.Fatalf("all() = %v, len() = %d, want %v", all, got.len(), want)
			}
			for id := range int64(4) {
				value, ok := got.get(id)
				if wantValue, wantOK := want[id]; value != wantValue || ok != wantOK {
					t.Fatalf("get(%d) = %d, %t, want %d, %t", id, value, ok, wantValue, wantOK)
				}
			}
		}
	}
}

// Users can be deleted from a userMap while it is read.
func TestUserMapDeleteInRange(t *testing.T) {
	t.Parallel()
	for users := range int64(4) {
		var m userMap[int]
		for id := range users {
			m.set(1+id, 0)
		}
		visited := int64(0)
		for id := range m.all() {
			m.delete(id)
			visited++
		}
		if visited != users || m.len() != 0 {
			t.Errorf("visited %d of %d users, %d are left", visited, users, m.len())
		}
	}
}
