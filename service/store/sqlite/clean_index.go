package sqlite

import (
	"time"
)

const (
	// cleanInterval is the pause before a step that cleans the index, cleanTokens the number of entries that
	// a step removes. A step takes about 6 ms, so cleaning takes a twentieth of the writer's time.
	cleanInterval = 100 * time.Millisecond
	cleanTokens   = 64
)

// cleanIf starts to remove unused tokens from the index in the background, if there are any.
func (s *Store) cleanIf(unused bool) {
	if unused && s.cleaning.CompareAndSwap(false, true) {
		time.AfterFunc(cleanInterval, s.clean)
	}
}

// clean removes some unused tokens in the next transaction of the writer. After a failure it stops until the
// next update with unused tokens, or the next start.
func (s *Store) clean() {
	more := false
	_ = s.queue.Go(func(w *writer) (err error) { // fails only after Close
		more, err = w.cleanIndex(cleanTokens)
		return err
	}, func(err error) {
		s.cleaning.Store(false)
		s.cleanIf(more && err == nil)
	})
}

// cleanIndex removes up to limit unused tokens from the index. It reports whether there are more.
func (w *writer) cleanIndex(limit int) (more bool, err error) {
	for limit > 0 {
		id, ok, err := w.firstUnused.number()
		if err != nil || !ok {
			return false, err
		}
		tokens, err := w.index.unusedOf(id)
		if err != nil {
			return false, err
		}
		n := min(len(tokens), limit)
		if err := w.index.removeTokens(id, tokens[:n]); err != nil {
			return false, err
		}
		if err := w.index.setUnused(id, tokens[n:], true); err != nil {
			return false, err
		}
		limit -= max(1, n)
	}
	return true, nil
}
