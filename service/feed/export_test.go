package feed

// SetLimits makes the limits of subscriptions small, so that a test reaches them.
func (f *Feed) SetLimits(follows, pending, rows int) { f.limits = limits{follows, pending, rows} }
