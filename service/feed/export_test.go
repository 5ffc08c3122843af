package feed

// SetLimits sets the limits of subscriptions.
func (f *Feed) SetLimits(follows, pending, rows int) { f.limits = limits{follows, pending, rows} }

// Subscriptions returns the number of subscriptions to one user or to all.
func (f *Feed) Subscriptions() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.subscribers) + len(f.wildcards)
}

// SetWindow sets the size of the window.
func (f *Feed) SetWindow(bytes int) { f.window.maximum = bytes }
