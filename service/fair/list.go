package fair

// list is a first-in, first-out queue. The zero value is empty.
type list[T any] struct {
	items []T
	head  int
}

func (l *list[T]) empty() bool { return l.head == len(l.items) }

func (l *list[T]) len() int { return len(l.items) - l.head }

// first returns the first item, which must exist.
func (l *list[T]) first() T { return l.items[l.head] }

func (l *list[T]) push(item T) {
	if len(l.items) == cap(l.items) && l.head > len(l.items)/2 {
		n := copy(l.items, l.items[l.head:])
		clear(l.items[n:])
		l.items, l.head = l.items[:n], 0
	}
	l.items = append(l.items, item)
}

// pop removes the first item, which must exist.
func (l *list[T]) pop() T {
	var none T
	item := l.items[l.head]
	l.items[l.head] = none
	if l.head++; l.head == len(l.items) {
		l.items, l.head = l.items[:0], 0
	}
	return item
}
