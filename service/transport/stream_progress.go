package transport

// progress tracks a blocked response write below the handler. It is guarded by Guard.mu.
type progress struct {
	observed bool
	last     int64
}

// madeProgress reports whether the client received anything since the last call. It finds progress
// smaller than a chunk of Exchange.write, for clients that open their flow-control window in small
// steps. It returns false if progress cannot be observed.
func (x *Exchange) madeProgress() bool {
	stream := x.streamOf()
	if stream == nil {
		return false
	}
	now := stream.Progress()
	progressed := x.progress.observed && now != x.progress.last
	x.progress.observed, x.progress.last = true, now
	return progressed
}
