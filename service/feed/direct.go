package feed

import "slices"

// deliveries is the number of subscriptions that are delivered before their output is sent.
const deliveries = 512

// prefetched is the number of subscriptions whose memory is read before they are delivered. Independent reads overlap: most of the time
// of a delivery is spent waiting for memory.
const prefetched = 16

// directChanges is the number of changes that one Deliver sends.
const directChanges = 8

// Direct sends the changes of a subscription on the goroutine of the feed, so that the goroutine of its stream need not be
// scheduled for each change.
type Direct interface {
	// Connection identifies the connection of the stream. It reads the memory that Deliver needs.
	Connection() any
	// Deliver sends the changes of PollPending(buf), and reports whether it did, and whether Flush must be called. It must not wait. If
	// sent is false, the stream is woken.
	Deliver(buf []StatusChange) (sent, flush bool)
	// Flush makes the output of Deliver be sent, also that of other streams of the connection. It must not wait. It may be called after the end of the
	// stream.
	Flush()
}

// output is the subscriptions of a connection that are delivered directly: one after the other, and then their output is sent. It is
// guarded by Feed.mu.
type output struct {
	connection    any
	subscriptions int
	ready         []*Subscription // to deliver
}

// DeliverBy makes changes be delivered by d. It must be called before the subscription has users.
func (s *Subscription) DeliverBy(d Direct) {
	f, connection := s.feed, d.Connection()
	f.mu.Lock()
	defer f.mu.Unlock()
	o := f.outputs[connection]
	if o == nil {
		o = &output{connection: connection}
		f.outputs[connection] = o
	}
	o.subscriptions++
	s.direct, s.output = d, o
}

// removeOutput is the end of DeliverBy. It requires the lock of the feed.
func (s *Subscription) removeOutput() {
	if s.output == nil {
		return
	}
	if s.output.subscriptions--; s.output.subscriptions == 0 {
		delete(s.feed.outputs, s.output.connection)
	}
}

// notify delivers a change or wakes the stream. It requires both locks.
func (s *Subscription) notify() {
	switch {
	case s.direct == nil:
		s.signal()
	case !s.queued:
		s.queued = true
		if o := s.output; len(o.ready) == 0 {
			s.feed.ready = append(s.feed.ready, o)
		}
		s.output.ready = append(s.output.ready, s)
	}
}

// deliverReady delivers the changes of the ready subscriptions until there are none.
func (f *Feed) deliverReady() {
	var outputs []*output
	var batch []*Subscription
	d := delivery{buf: make([]StatusChange, directChanges)}
	for {
		f.mu.Lock()
		outputs, f.ready = f.ready, outputs[:0]
		f.delivering = len(outputs) > 0
		f.mu.Unlock()
		if len(outputs) == 0 {
			return
		}
		for _, o := range outputs {
			f.mu.Lock()
			batch, o.ready = o.ready, batch[:0]
			f.mu.Unlock()
			for some := range slices.Chunk(batch, prefetched) {
				d.deliver(some)
			}
			clear(batch)
		}
		d.flush()
		clear(outputs)
	}
}

// delivery is the state of deliverReady.
type delivery struct {
	buf       []StatusChange
	wake      [prefetched]chan struct{}
	delivered int      // since the last flush
	unflushed []Direct // one of each connection
}

// deliver delivers the changes of at most prefetched subscriptions.
func (d *delivery) deliver(subscriptions []*Subscription) {
	for i, s := range subscriptions {
		s.direct.Connection()
		d.wake[i] = s.wake
	}
	for i, s := range subscriptions {
		sent, flush := s.direct.Deliver(d.buf)
		if !sent {
			signal(d.wake[i])
		}
		if flush {
			d.unflushed = append(d.unflushed, s.direct)
		}
	}
	if d.delivered += len(subscriptions); d.delivered >= deliveries {
		d.flush()
	}
}

// flush sends the output of all connections together, so that one idle processor is woken for several of them.
func (d *delivery) flush() {
	for _, direct := range d.unflushed {
		direct.Flush()
	}
	clear(d.unflushed)
	d.unflushed, d.delivered = d.unflushed[:0], 0
}
