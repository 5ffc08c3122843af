package feed

import "iter"

// userMap is a map of user ids. It has one user without an allocation: most subscriptions are to one user.
type userMap[V any] struct {
	id    int64       // 0: none
	more  map[int64]V // in place of id and value; nil: there is at most one user
	value V
}

func (m *userMap[V]) get(id int64) (value V, ok bool) {
	switch {
	case m.more != nil:
		value, ok = m.more[id]
	case m.id == id && id != 0:
		value, ok = m.value, true
	}
	return value, ok
}

func (m *userMap[V]) has(id int64) bool {
	_, ok := m.get(id)
	return ok
}

func (m *userMap[V]) set(id int64, value V) {
	switch {
	case m.more != nil:
		m.more[id] = value
	case m.id == 0, m.id == id:
		m.id, m.value = id, value
	default:
		*m = userMap[V]{more: map[int64]V{m.id: m.value, id: value}}
	}
}

// delete releases the memory with the last user: a map never shrinks.
func (m *userMap[V]) delete(id int64) {
	delete(m.more, id)
	if m.id == id || m.more != nil && len(m.more) == 0 {
		*m = userMap[V]{}
	}
}

func (m *userMap[V]) len() int {
	if m.id != 0 {
		return 1
	}
	return len(m.more)
}

// all returns all users in any order. Users can be deleted meanwhile.
func (m *userMap[V]) all() iter.Seq2[int64, V] {
	return func(yield func(int64, V) bool) {
		if m.id != 0 {
			yield(m.id, m.value)
			return
		}
		for id, value := range m.more {
			if !yield(id, value) {
				return
			}
		}
	}
}
