package feed

// SetLimits sets the limits of subscriptions.
func (f *Feed) SetLimits(follows, pending, rows int) { f.limits = limits{follows, pending, rows} }

// Subscriptions returns the number of subscriptions to one user or to all.
func (f *Feed) Subscriptions() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.subscribers) + len(f.wildcards)
}

// Outputs returns the number of connections with subscriptions that are delivered directly.
func (f *Feed) Outputs() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.outputs)
}

// Positions returns the number of users whose last delivered position the subscription has.
func (s *Subscription) Positions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.positions.len()
}

// Pending returns the number of undelivered changes in memory.
func (s *Subscription) Pending() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pending.len()
}

// SetWindow sets the size of the window.
func (f *Feed) SetWindow(bytes int) { f.window.maximum = bytes }
