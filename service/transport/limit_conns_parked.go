package transport

import (
	"cmp"
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/yourorg/userservice/service/http2"
)

const (
	// parkTimeout is how long an accepted connection waits for memory before it is rejected.
	// Rejected clients may reconnect at once.
	parkTimeout = 5 * time.Second
	// maxParked is the maximum number of parked connections. One peer can have three quarters.
	maxParked  = 8192
	parkOfPeer = 4
	// maxEvictions is the maximum number of evictions per sweep. Evicted clients may reconnect too.
	maxEvictions = 8
)

// parked is the set of accepted connections that wait for memory. They are not read, and cost
// little more than a socket.
type parked struct {
	byPeer map[netip.Addr][]parkedConn
	count  int
}

type parkedConn struct {
	net.Conn

	since time.Duration
}

// park parks a connection. It returns false if too many are parked.
func (l *Listener) park(peer netip.Addr, inner net.Conn) bool {
	most := maxParked
	if n := l.opts.MaxConnections; n > 0 {
		most = min(most, n/2)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	waiting := l.parked.byPeer[peer]
	if l.parked.count >= most || len(waiting) >= most/parkOfPeer*3 {
		return false
	}
	l.parked.byPeer[peer] = append(waiting, parkedConn{inner, l.now()})
	l.parked.count++
	return true
}

// unpark admits parked connections, first those of peers with the fewest open connections, and
// rejects those over parkTimeout. It evicts up to maxEvictions unused connections.
func (l *Listener) unpark() {
	evictions := maxEvictions
	evict := func(c *serverConn, err error) bool {
		if evictions == 0 {
			return false
		}
		victim := l.evictable(c, err)
		if victim == nil {
			return false
		}
		evictions--
		victim.abort(http2.CloseMemory)
		return true
	}
	for _, peer := range l.parkedPeers() {
		for {
			conn, ok := l.nextParked(peer)
			if !ok {
				break
			}
			if l.admit(conn.Conn, evict) == nil {
				continue
			}
			if l.now()-conn.since < parkTimeout {
				l.parkFirst(peer, conn)
				break
			}
			l.reject(conn.Conn, RejectedMemory)
		}
	}
}

// parkedPeers returns the peers with parked connections, in ascending order of open connections.
func (l *Listener) parkedPeers() []netip.Addr {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.SortedFunc(maps.Keys(l.parked.byPeer), func(a, b netip.Addr) int {
		return cmp.Compare(len(l.peers[a]), len(l.peers[b]))
	})
}

// nextParked removes and returns the oldest parked connection of the peer.
func (l *Listener) nextParked(peer netip.Addr) (conn parkedConn, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	waiting := l.parked.byPeer[peer]
	if len(waiting) == 0 {
		delete(l.parked.byPeer, peer)
		return conn, false
	}
	conn, waiting[0] = waiting[0], parkedConn{}
	l.parked.byPeer[peer] = waiting[1:]
	l.parked.count--
	return conn, true
}

// parkFirst puts a connection back after nextParked.
func (l *Listener) parkFirst(peer netip.Addr, conn parkedConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.parked.byPeer[peer] = slices.Insert(l.parked.byPeer[peer], 0, conn)
	l.parked.count++
}

func (l *Listener) closeParked() {
	for _, peer := range l.parkedPeers() {
		for conn, ok := l.nextParked(peer); ok; conn, ok = l.nextParked(peer) {
			_ = conn.Close() // the error is irrelevant, the connection was not served
		}
	}
}
