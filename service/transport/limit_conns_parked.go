package transport

import (
	"cmp"
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"
)

const (
	// parkTime is how long an accepted connection waits for memory before it is refused.
	// Peers that are refused at once come back at once.
	parkTime = 5 * time.Second
	// parkMost is how many connections wait at a time, and parkOfPeer of how many parts
	// three may be those of one peer.
	parkMost   = 8192
	parkOfPeer = 4
	// evictionsAtOnce is how many connections that are not in use are closed for those that
	// wait, each time that they are looked at. Their peers may come back, too.
	evictionsAtOnce = 8
)

// parked are connections that were accepted and wait for memory. Nothing is read from
// them, and they cost hardly more than their socket.
type parked struct {
	byPeer map[netip.Addr][]parkedConn
	count  int
}

type parkedConn struct {
	net.Conn

	since time.Duration
}

// park keeps a connection until there is memory. It returns false if too many wait.
func (l *Listener) park(peer netip.Addr, inner net.Conn) bool {
	most := parkMost
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

// unpark admits connections that wait for memory, first those of the peers with the fewest
// connections, and refuses those that have waited for too long. A few connections that are
// not in use make room.
func (l *Listener) unpark() {
	evictions := evictionsAtOnce
	makeRoom := func(c *gatherConn, err error) bool {
		if evictions == 0 {
			return false
		}
		victim := l.unused(c, err)
		if victim == nil {
			return false
		}
		evictions--
		victim.abort(CauseMemory)
		return true
	}
	for _, peer := range l.parkedPeers() {
		for {
			conn, ok := l.nextParked(peer)
			if !ok {
				break
			}
			if l.admit(conn.Conn, makeRoom) == nil {
				continue
			}
			if l.now()-conn.since < parkTime {
				l.parkFirst(peer, conn)
				break
			}
			l.refuse(conn.Conn, RefusedMemory)
		}
	}
}

// parkedPeers returns the peers whose connections wait, those with the fewest open
// connections first.
func (l *Listener) parkedPeers() []netip.Addr {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.SortedFunc(maps.Keys(l.parked.byPeer), func(a, b netip.Addr) int {
		return cmp.Compare(len(l.peers[a]), len(l.peers[b]))
	})
}

// nextParked takes the connection of the peer that has waited for longest.
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

// parkFirst puts a connection back that nextParked took.
func (l *Listener) parkFirst(peer netip.Addr, conn parkedConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.parked.byPeer[peer] = slices.Insert(l.parked.byPeer[peer], 0, conn)
	l.parked.count++
}

// closeParked closes all connections that wait.
func (l *Listener) closeParked() {
	for _, peer := range l.parkedPeers() {
		for conn, ok := l.nextParked(peer); ok; conn, ok = l.nextParked(peer) {
			_ = conn.Close() // it was never served
		}
	}
}
