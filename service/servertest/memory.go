package servertest

import (
	"context"
	"net"
	"sync"
)

// memoryListener is an in-memory listener. Its peers have loopback addresses with different ports.
type memoryListener struct {
	accepted chan net.Conn
	closed   chan struct{}
	close    sync.Once

	mu    sync.Mutex
	peers int
}

func newMemoryListener() *memoryListener {
	return &memoryListener{accepted: make(chan net.Conn), closed: make(chan struct{})}
}

// Addr returns a loopback address on which no socket listens.
func (l *memoryListener) Addr() net.Addr { return loopback(1) }

// Accept returns the next connection.
func (l *memoryListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.accepted:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close stops Accept and dial.
func (l *memoryListener) Close() error {
	l.close.Do(func() { close(l.closed) })
	return nil
}

func (l *memoryListener) dial(ctx context.Context) (net.Conn, error) {
	l.mu.Lock()
	l.peers++
	peer := loopback(l.peers + 1)
	l.mu.Unlock()
	client, server := newPipe(peer, l.Addr())
	select {
	case l.accepted <- server:
		return client, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func loopback(port int) *net.TCPAddr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port} }
