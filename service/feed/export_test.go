package feed

// SetLimits sets the limits of subscriptions.
func (f *Feed) SetLimits(follows, pending, rows int) { f.limits = limits{follows, pending, rows} }
