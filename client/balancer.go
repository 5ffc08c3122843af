package client

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"connectrpc.com/connect"
)

// balancer chooses the node of each attempt.
type balancer struct {
	client    *Client
	balancing Balancing
	next      atomic.Uint64
	nodes     atomic.Pointer[[]*node]

	mu       sync.Mutex // protects updates
	closed   bool
	watchers sync.WaitGroup
}

// update replaces the nodes. Nodes of unchanged endpoints are kept. The calls and streams of a removed node continue.
func (b *balancer) update(endpoints []endpoint) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	var after []*node
	before := *b.nodes.Load()
	for _, e := range endpoints {
		i := slices.IndexFunc(before, func(n *node) bool { return n.endpoint == e })
		if i >= 0 {
			after = append(after, before[i])
			continue
		}
		n := b.client.newNode(e)
		ctx, stop := context.WithCancel(b.client.ctx)
		n.stop = stop
		b.watchers.Go(func() { b.client.watch(ctx, n) })
		after = append(after, n)
	}
	b.nodes.Store(&after)
	for _, n := range before {
		if !slices.Contains(after, n) {
			n.close()
		}
	}
}

func (n *node) close() {
	n.stop()
	n.transp.CloseIdleConnections()
}

// close ends the lookups, the health checks and the connections.
func (b *balancer) close() {
	b.mu.Lock()
	b.closed = true
	nodes := *b.nodes.Load()
	b.mu.Unlock()
	for _, n := range nodes {
		n.stop()
	}
	b.watchers.Wait() // without the lock, which a lookup may need
	b.nodes.Store(new([]*node))
	for _, n := range nodes {
		_ = n.transp.Close()
	}
}

// lease is the use of a node by a call or stream, which must call done.
type lease struct {
	node   *node
	report func(error) // to the circuit breaker; nil: reported
}

// result reports the result to the circuit breaker. Only the first one counts.
func (l *lease) result(ctx context.Context, err error) {
	if l.report != nil {
		l.report(breakerResult(ctx, err))
		l.report = nil
	}
}

// done ends the use with the result of the call.
func (l *lease) done(ctx context.Context, err error) {
	l.node.inFlight.Add(-1)
	l.result(ctx, err)
}

// pick chooses a node, another one than last if possible. Nodes whose
// health is unknown are chosen like healthy ones, unreachable ones only if there is no other, and nodes that report
// NOT_SERVING never.
func (b *balancer) pick(last *node) (lease, error) {
	nodes := *b.nodes.Load()
	start := b.next.Add(1)
	for _, accept := range [...]func(*node) bool{
		func(n *node) bool { return n != last && status(n.status.Load()) <= statusServing },
		func(n *node) bool { return n == last && status(n.status.Load()) <= statusServing },
		func(n *node) bool { return status(n.status.Load()) == statusUnreachable },
	} {
		if chosen, ok := b.choose(nodes, start, accept); ok {
			return chosen, nil
		}
	}
	if b.client.ctx.Err() != nil {
		return lease{}, connect.NewError(connect.CodeCanceled, ErrClosed)
	}
	return lease{}, connect.NewError(connect.CodeUnavailable, ErrNoNode)
}

// choose returns the first acceptable node whose breaker lets a call through, in the order of the balancing.
func (b *balancer) choose(nodes []*node, start uint64, accept func(*node) bool) (lease, bool) {
	n := uint64(len(nodes))
	if b.balancing == LeastLoaded && n > 1 {
		sorted := make([]*node, 0, n)
		for i := range n {
			sorted = append(sorted, nodes[(start+i)%n])
		}
		slices.SortStableFunc(sorted, func(x, y *node) int { return int(x.inFlight.Load() - y.inFlight.Load()) })
		nodes, start = sorted, 0
	}
	for i := range n {
		chosen := nodes[(start+i)%n]
		if !accept(chosen) {
			continue
		}
		report, err := chosen.breaker.Allow()
		if err != nil {
			continue
		}
		chosen.inFlight.Add(1)
		return lease{node: chosen, report: report}, true
	}
	return lease{}, false
}
