package servertest

import (
	"context"
	"errors"
	"net"
	"os"
	"sync/atomic"

	"google.golang.org/grpc/test/bufconn"
)

// memoryBuffer is the size of the buffer of each direction of an in-memory connection.
const memoryBuffer = 64 << 10

// memoryListener is an in-memory listener. Its peers have loopback addresses with different ports.
type memoryListener struct {
	*bufconn.Listener

	peers atomic.Int32
}

func newMemoryListener() *memoryListener {
	return &memoryListener{Listener: bufconn.Listen(memoryBuffer)}
}

// Addr returns a loopback address, which nobody listens on.
func (l *memoryListener) Addr() net.Addr { return loopback(1) }

// Accept returns the next connection.
func (l *memoryListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &memoryConn{Conn: conn, peer: loopback(int(l.peers.Add(1)) + 1)}, nil
}

func (l *memoryListener) dial(ctx context.Context) (net.Conn, error) {
	return l.DialContext(ctx)
}

// memoryConn is the connection of a server.
type memoryConn struct {
	net.Conn

	peer net.Addr
}

// Read reads from the connection.
func (c *memoryConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	return n, temporary(err)
}

// Write writes to the connection.
func (c *memoryConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	return n, temporary(err)
}

// temporary returns the error of a deadline as package net does. Otherwise crypto/tls takes it for a broken
// connection, and net/http, which ends a read by a deadline after each HTTP/1.1 request, loses the connection.
func temporary(err error) error {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return os.ErrDeadlineExceeded
	}
	return err
}

// LocalAddr returns the address of the listener.
func (c *memoryConn) LocalAddr() net.Addr { return loopback(1) }

// RemoteAddr returns the address of the client.
func (c *memoryConn) RemoteAddr() net.Addr { return c.peer }

func loopback(port int) *net.TCPAddr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port} }
