package feed

import (
	"context"
	"slices"
	"sort"
	"sync"

	"github.com/yourorg/userservice/service/panics"
	"github.com/yourorg/userservice/service/user"
)

// windowBytes is the maximum size of the window.
const windowBytes = 1 << 20

// window has the last changes of users, for the cursors at the head of the log. After a commit it is filled from
// the store once, on a goroutine of its own. A cursor that is before the window reads the store. After each commit
// that changes users all cursors are signaled: at once if the window is closed, else when it was filled.
//
// The window is complete in (from, to]: for each user that changed in it, it has the newest change, except those
// of users that changed again after to.
type window struct {
	feed    *Feed
	maximum int // size
	reserve func(bytes int64) (release func(), ok bool)

	mu       sync.Mutex
	head     int64 // of the last commit
	changed  int64 // head of the last commit that changed users
	readers  int   // cursors that read the window; 0: it is closed
	opened   int   // generation; a cursor of an earlier one must read the store
	release  func()
	from, to int64
	entries  []*entry        // in the order of positions, one for each user
	newest   map[int64]int64 // position by user
	bytes    int
	filling  bool
}

// SetMemory sets the function that reserves the memory that cursors share. Without memory each UserCursor reads
// the store. It must be called before the first cursor is created.
func (f *Feed) SetMemory(reserve func(bytes int64) (release func(), ok bool)) {
	f.window.reserve = reserve
}

// committed records a commit. It returns true if the cursors must be signaled now, whether users changed or not: a
// cursor that reads the store must be past the rows that are pruned.
func (w *window) committed(head int64, usersChanged bool) (signal bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.head = head
	if usersChanged {
		w.changed = head
	}
	if w.readers == 0 {
		return true
	}
	w.advance()
	return false
}

// advance moves the end of the window to the head, or starts to fill it if users changed.
func (w *window) advance() {
	if w.changed <= w.to {
		w.to = max(w.to, w.head)
	} else if !w.filling {
		w.filling = true
		go w.fill(w.opened, w.to)
	}
}

// join makes a cursor at a position read the window. It returns the generation of the window, or 0 if there is no
// memory.
func (w *window) join(position int64) (generation int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.readers == 0 && !w.open(position) {
		return 0
	}
	w.readers++
	w.advance()
	return w.opened
}

// open opens the window at a position, if memory is available.
func (w *window) open(position int64) bool {
	release, ok := func() {}, true
	if w.reserve != nil {
		release, ok = w.reserve(int64(w.maximum) + UserPageMemory())
	}
	if !ok {
		return false
	}
	w.opened++
	w.release, w.from, w.to, w.newest = release, position, position, make(map[int64]int64)
	return true
}

// leave ends the reading of a cursor.
func (w *window) leave(generation int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if generation != w.opened || w.readers == 0 {
		return
	}
	if w.readers--; w.readers == 0 {
		w.close()
	}
}

func (w *window) close() {
	w.release()
	w.release, w.readers, w.entries, w.newest, w.bytes, w.filling = nil, 0, nil, nil, 0, false
}

// read returns changes after the position of a query, and the position up to which there are no others. It
// returns false if the window is not complete after that position.
func (w *window) read(generation int, query *user.LogQuery) (entries []*entry, through int64, atHead, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if generation != w.opened || w.readers == 0 || query.After < w.from {
		return nil, 0, false, false
	}
	next := w.entries[w.after(query.After):]
	n, bytes := 0, 0
	for n < min(len(next), query.MaxRows) && bytes < query.MaxBytes {
		bytes += next[n].size()
		n++
	}
	if n < len(next) {
		return slices.Clone(next[:n]), next[n-1].Position, false, true
	}
	return slices.Clone(next), max(query.After, w.to), true, true
}

// after returns the index of the first entry after a position.
func (w *window) after(position int64) int {
	return sort.Search(len(w.entries), func(i int) bool { return w.entries[i].Position > position })
}

// fill reads the next page after a position.
func (w *window) fill(generation int, after int64) {
	var read usersRead
	keys := make(map[int64]user.Keys)
	err := panics.Catch(func() (err error) { // no interceptor covers this goroutine
		read, err = w.feed.readUsers(context.Background(), usersQuery{
			after: after, removalsAfter: after, maxUsers: pageRows, maxBytes: pageBytes,
			matches: func(u *user.User, k user.Keys) bool { keys[u.ID] = k; return true },
		})
		return err
	})
	w.add(generation, read, keys, err)
	w.feed.mu.Lock() // cursors are signaled even if the window was closed
	defer w.feed.mu.Unlock()
	w.feed.signalAll(changedUsers)
}

// add appends a page, and starts to read the next one if users changed since. After a failed read the window
// is closed, so that each cursor reads the store and fails with its own error.
func (w *window) add(generation int, read usersRead, keys map[int64]user.Keys, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case generation != w.opened || w.readers == 0:
		return
	case err != nil:
		w.close()
		return
	}
	for i := range read.changes {
		e := &entry{UserChange: read.changes[i], keys: keys[read.changes[i].UserID]}
		e.shared.window, e.shared.entry, e.Shared = w, e, &e.shared
		w.append(e)
	}
	w.to, w.filling = read.through, false
	w.advance()
}

// append adds an entry and removes the previous one of the user.
func (w *window) append(e *entry) {
	if position, ok := w.newest[e.UserID]; ok {
		w.remove(w.after(position - 1))
	}
	w.entries = append(w.entries, e)
	w.newest[e.UserID] = e.Position
	w.bytes += e.size()
	w.evict()
}

// evict removes the oldest entries that exceed the maximum.
func (w *window) evict() {
	for w.bytes > w.maximum {
		w.from = w.entries[0].Position
		w.remove(0)
	}
}

func (w *window) remove(i int) {
	w.bytes -= w.entries[i].size()
	delete(w.newest, w.entries[i].UserID)
	w.entries = slices.Delete(w.entries, i, i+1)
}

// entry is a change in the window.
type entry struct {
	UserChange

	keys   user.Keys
	shared Shared
}

// entryBytes is the size of an entry without its user and values.
const entryBytes = 300

func (e *entry) size() int {
	if e.User == nil {
		return entryBytes
	}
	return entryBytes + e.User.Size() + e.shared.bytes
}

// Shared has values derived from a change, such as its encoding, for the cursors that return it.
type Shared struct {
	window *window
	entry  *entry

	mu     sync.Mutex
	values map[any]any
	bytes  int // guarded by the window
}

// Value returns the value with a key, which must be comparable. If there is none it calls derive, which returns the
// value and its size. The value is kept while the window has the change.
func (s *Shared) Value(key any, derive func() (value any, bytes int, err error)) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if value, ok := s.values[key]; ok {
		return value, nil
	}
	value, bytes, err := derive()
	if err != nil || !s.window.grow(s.entry, bytes) {
		return value, err
	}
	if s.values == nil {
		s.values = make(map[any]any)
	}
	s.values[key] = value
	return value, nil
}

// grow adds the size of a value to an entry. It returns false if the window no longer has the entry.
func (w *window) grow(e *entry, bytes int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if i := w.after(e.Position - 1); i == len(w.entries) || w.entries[i] != e {
		return false
	}
	e.shared.bytes += bytes
	w.bytes += bytes
	w.evict()
	return true
}
