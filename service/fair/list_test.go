package fair

import "testing"

// A list that is never empty keeps the order, and reuses the memory of what was removed without a reference to it.
func TestListReusesMemory(t *testing.T) {
	var l list[*int]
	next, want := 0, 0
	push := func() { n := next; l.push(&n); next++ }
	for range 8 {
		push()
	}
	most := cap(l.items)
	for range 1000 {
		push()
		if got := *l.first(); got != want || l.len() != next-want {
			t.Fatalf("first() = %d of %d, want %d of %d", got, l.len(), want, next-want)
		}
		if got := *l.pop(); got != want {
			t.Fatalf("pop() = %d, want %d", got, want)
		}
		want++
		kept := 0
		for _, item := range l.items[:cap(l.items)] {
			if item != nil {
				kept++
			}
		}
		if kept != l.len() || cap(l.items) > 4*most {
			t.Fatalf("%d items are kept in %d places, want %d in at most %d", kept, cap(l.items), l.len(), 4*most)
		}
	}
	for !l.empty() {
		l.pop()
	}
	if l.head != 0 || len(l.items) != 0 {
		t.Errorf("an empty list starts at %d of %d, want 0 of 0", l.head, len(l.items))
	}
}
