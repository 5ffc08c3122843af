package group

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// round is the model of a Fair: the callers in the order of their turns, and their items.
type round struct {
	callers []string
	items   map[string][]int
}

func (m *round) insert(caller string, at, item int) {
	if len(m.items[caller]) == 0 {
		m.callers = append(m.callers, caller)
	}
	if at < 0 || at > len(m.items[caller]) {
		at = len(m.items[caller])
	}
	m.items[caller] = slices.Insert(slices.Clone(m.items[caller]), at, item)
}

func (m *round) pop() (item int, ok bool) {
	if len(m.callers) == 0 {
		return 0, false
	}
	caller := m.callers[0]
	m.callers = m.callers[1:]
	item = m.items[caller][0]
	if m.items[caller] = m.items[caller][1:]; len(m.items[caller]) > 0 {
		m.callers = append(m.callers, caller)
	}
	return item, true
}

func (m *round) remove(caller string, item int) bool {
	i := slices.Index(m.items[caller], item)
	if i < 0 {
		return false
	}
	if m.items[caller] = slices.Delete(slices.Clone(m.items[caller]), i, i+1); len(m.items[caller]) == 0 {
		m.callers = slices.DeleteFunc(slices.Clone(m.callers), func(other string) bool { return other == caller })
	}
	return true
}

func TestFairServesCallersRoundRobin(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		var q Fair[int]
		m := &round{items: make(map[string][]int)}
		callers := []string{"a", "b", "c"}
		for n := range rapid.IntRange(1, 40).Draw(r, "steps") {
			caller := rapid.SampledFrom(callers).Draw(r, "caller")
			switch rapid.IntRange(0, 4).Draw(r, "step") {
			case 0, 1:
				q.Push(caller, n)
				m.insert(caller, -1, n)
			case 2:
				at := rapid.IntRange(-1, 4).Draw(r, "at")
				q.Insert(caller, at, n)
				m.insert(caller, at, n)
			case 3:
				got, ok := q.Pop()
				if want, wantOK := m.pop(); got != want || ok != wantOK {
					r.Fatalf("Pop() = %d, %t, want %d, %t", got, ok, want, wantOK)
				}
			case 4:
				item := rapid.IntRange(0, n).Draw(r, "item")
				if got, want := q.Remove(caller, item), m.remove(caller, item); got != want {
					r.Fatalf("Remove(%s, %d) = %t, want %t", caller, item, got, want)
				}
			}
			m.compare(r, &q, callers)
		}
	})
}

func (m *round) compare(r *rapid.T, q *Fair[int], callers []string) {
	items := 0
	for _, list := range m.items {
		items += len(list)
	}
	if q.Callers() != len(m.callers) || q.Len() != items || len(q.callers) != len(m.callers) {
		r.Fatalf("%d callers with %d items, want %d with %d", q.Callers(), q.Len(), len(m.callers), items)
	}
	for _, caller := range callers {
		if got, want := q.OnlyOf(caller), items == len(m.items[caller]); got != want {
			r.Fatalf("OnlyOf(%s) = %t, want %t with %v", caller, got, want, m)
		}
	}
}
