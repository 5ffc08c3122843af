package transport

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/yourorg/userservice/service/budget"
	"github.com/yourorg/userservice/service/fair"
)

const (
	// refusalsAtOnce is how many connections are told at a time that there are too
	// many; further ones are closed without a word.
	refusalsAtOnce = 64
	// refusalPause is how long accepting pauses after a refusal. Peers that are refused may
	// come back at once, and would take the processor's time from others.
	refusalPause = time.Millisecond
	// peerPrefix is how much of an IPv6 address stands for one peer: that is what one
	// customer is given.
	peerPrefix = 64
)

// ListenOptions are the limits of connections.
type ListenOptions struct {
	// StallTimeout is how long a connection may take no byte at all.
	StallTimeout time.Duration
	// TLS makes the connections use TLS, which is told to handlers by WithTLS; nil: none.
	// The server above must be one without TLS.
	TLS *tls.Config
	// Memory is the budget that connections draw on, nil: without a limit. Class is that of
	// peers without credentials.
	Memory *budget.Budget
	Class  budget.Class
	// HeaderTimeout bounds the time from the first byte of a header block of HTTP/2 to its
	// end. 0: no limit.
	HeaderTimeout time.Duration
	// MaxConcurrentStreams is that of the server above. 0: it is not known.
	MaxConcurrentStreams int
	// MaxConnections and MaxPerPeer bound the connections in all and from one address,
	// which of IPv6 is a /64. 0: no bound.
	MaxConnections, MaxPerPeer int
	// Exempt, if set, reports whether an address may have any number of connections, as a
	// proxy has those of its clients.
	Exempt func(net.Addr) bool
	// Scheduler shares the processors among peers; nil: frames are handled as they come.
	Scheduler *fair.Scheduler
	// Frames bound what an HTTP/2 connection may send beside its calls.
	Frames FrameLimits
	// Refused, if set, is told of connections beyond the bounds, Overdrawn of those that
	// were closed since their budget was spent.
	Refused   func(peer net.Addr, reason Refusal)
	Overdrawn func(peer net.Addr, cause Cause)
	// Unserved, if set, is told of HTTP/1 connections that have ended, brought bytes, and
	// no request that came to the handler: what was not HTTP, or what net/http refused by
	// itself, as it does with 400, 431, 501 and 505 before any handler runs.
	Unserved func(peer net.Addr)
	// NotHandshaken, if set, is told of TLS handshakes that failed.
	NotHandshaken func(peer net.Addr, err error)
}

// Listener is a listener whose HTTP/2 connections read and write in larger steps
// than net/http does, which makes a system call for each frame, and for reading two.
// What is written is gathered while other goroutines have their turn, and then
// written at once. Connections that do not begin as HTTP/2 does are left as they are.
//
// A connection that takes no byte for the stall limit is closed, and so is one that
// spends its budget of frames; where there are too many it does not begin.
type Listener struct {
	net.Listener

	opts     ListenOptions
	born     time.Time
	open     atomic.Int64
	refusing chan struct{}
	closed   chan struct{}
	accepted chan accepted
	starting sync.Once
	closing  sync.Once

	mu     sync.Mutex
	peers  map[netip.Addr]map[*gatherConn]struct{}
	parked parked
}

// Listen returns a listener that keeps the limits.
func Listen(l net.Listener, opts ListenOptions) *Listener {
	return &Listener{
		Listener: l, opts: opts, born: time.Now(),
		refusing: make(chan struct{}, refusalsAtOnce), closed: make(chan struct{}),
		accepted: make(chan accepted), peers: make(map[netip.Addr]map[*gatherConn]struct{}),
		parked: parked{byPeer: make(map[netip.Addr][]parkedConn)},
	}
}

// Close stops accepting. Connections stay open.
func (l *Listener) Close() error {
	l.closing.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// Open is how many connections there are.
func (l *Listener) Open() int64 { return l.open.Load() }

// accepted is a result of Accept.
type accepted struct {
	conn net.Conn
	err  error
}

// Accept waits for a connection within the bounds. None is accepted while memory is
// critically short.
func (l *Listener) Accept() (net.Conn, error) {
	l.starting.Do(func() { go l.acceptAll(); go l.sweep() })
	select {
	case a := <-l.accepted:
		return a.conn, a.err
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// acceptAll accepts connections until the listener is closed.
func (l *Listener) acceptAll() {
	for {
		l.awaitMemory()
		inner, err := l.Listener.Accept()
		if err != nil {
			if !l.deliver(nil, err) {
				return
			}
			continue
		}
		peer := peerOf(inner.RemoteAddr().String())
		refusal := l.refusal(peer, l.opts.Exempt != nil && l.opts.Exempt(inner.RemoteAddr()))
		if refusal == "" && l.admit(inner, nil) != nil && !l.park(peer, inner) {
			refusal = RefusedMemory
		}
		if refusal != "" {
			l.refuse(inner, refusal)
			time.Sleep(refusalPause)
		}
	}
}

// deliver gives a connection or an error to Accept. It returns false if the listener was
// closed meanwhile.
func (l *Listener) deliver(conn net.Conn, err error) bool {
	select {
	case l.accepted <- accepted{conn, err}:
		return true
	case <-l.closed:
		return false
	}
}

// admit reserves memory for a connection and gives it to Accept. If there is no memory it
// asks makeRoom, if that is set, to make some.
func (l *Listener) admit(inner net.Conn, makeRoom func(*gatherConn, error) bool) error {
	conn := l.newConn(inner)
	err := l.reserve(conn)
	if err != nil && makeRoom != nil && makeRoom(conn, err) {
		err = l.reserve(conn)
	}
	if err != nil {
		return err
	}
	l.open.Add(1)
	l.enter(conn)
	conn.left = func() { l.leave(conn) }
	if !l.deliver(conn, nil) {
		_ = conn.Close() // there is nobody to serve it
	}
	return nil
}

func (l *Listener) newConn(inner net.Conn) *gatherConn {
	if l.opts.TLS == nil {
		return newGatherConn(inner, l)
	}
	below := &belowTLS{Conn: inner}
	secure := tls.Server(below, l.opts.TLS)
	conn := newGatherConn(secure, l)
	conn.state.conn, conn.state.below = secure, below
	below.memory.Store(&conn.memory)
	return conn
}

// Refusal says which bound refuses a connection.
type Refusal string

// The refusals.
const (
	RefusedTotal   Refusal = "too_many"
	RefusedPerPeer Refusal = "too_many_of_peer"
	RefusedMemory  Refusal = "memory"
)

// Refusals returns all refusals.
func Refusals() []Refusal { return []Refusal{RefusedTotal, RefusedPerPeer, RefusedMemory} }

// refusal returns why a connection of the peer is refused; empty: it is not. An exempt
// peer has no bound of its own.
func (l *Listener) refusal(peer netip.Addr, exempt bool) Refusal {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.opts.MaxConnections > 0 && l.open.Load()+int64(l.parked.count) >= int64(l.opts.MaxConnections):
		return RefusedTotal
	case l.opts.MaxPerPeer > 0 && !exempt && len(l.peers[peer])+len(l.parked.byPeer[peer]) >= l.opts.MaxPerPeer:
		return RefusedPerPeer
	}
	return ""
}

// peerOf gives what stands for the peer at an address with or without a port.
func peerOf(addr string) netip.Addr {
	at, err := netip.ParseAddrPort(addr)
	ip := at.Addr()
	if err != nil {
		if ip, err = netip.ParseAddr(addr); err != nil {
			return netip.Addr{} // those that have no such address count as one
		}
	}
	ip = ip.Unmap().WithZone("")
	if ip.Is4() {
		return ip
	}
	prefix, err := ip.Prefix(peerPrefix)
	if err != nil {
		return ip
	}
	return prefix.Addr()
}

// Peer gives what stands for the peer at an address with its port, in limits: the
// address itself, or the first half of one of IPv6.
func Peer(addr string) string { return peerOf(addr).String() }

func (l *Listener) overdrawn(c net.Conn, cause Cause) {
	if l.opts.Overdrawn != nil {
		l.opts.Overdrawn(c.RemoteAddr(), cause)
	}
}

// refuse tells a peer in its own protocol that there are too many connections, if it
// says soon which one it speaks.
func (l *Listener) refuse(conn net.Conn, reason Refusal) {
	if l.opts.Refused != nil {
		l.opts.Refused(conn.RemoteAddr(), reason)
	}
	select {
	case l.refusing <- struct{}{}:
	default:
		_ = conn.Close()
		return
	}
	go func() {
		defer func() { <-l.refusing }()
		defer func() { _ = conn.Close() }()
		if l.opts.TLS != nil {
			return // a handshake is more than the peer shall have
		}
		if conn.SetDeadline(time.Now().Add(closeGrace)) != nil {
			return
		}
		begins := make([]byte, drainBytes>>10)
		n, _ := conn.Read(begins)
		if _, err := conn.Write(refusal(begins[:n])); err != nil {
			return
		}
		if half, ok := conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
			for n := 1; n > 0; { // until the peer has gone, or its second is over
				n, _ = conn.Read(begins)
			}
		}
	}()
}

// refusal is what a peer is told that begins so.
func refusal(begins []byte) []byte {
	if !bytes.HasPrefix(begins, preface) {
		return []byte("HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\n" +
			"Content-Type: text/plain; charset=utf-8\r\nContent-Length: 21\r\n\r\ntoo many connections\n")
	}
	return append(emptySettings(), farewell("connections")...)
}

// tlsState is what the handshake of a connection has come to.
type tlsState struct {
	conn  *tls.Conn
	below *belowTLS
	once  sync.Once
	got   tls.ConnectionState
}

// belowTLS is a connection below TLS. Above it a write whose deadline passes is the
// last, however much of it was taken, so it is here that progress is seen.
type belowTLS struct {
	net.Conn

	above  atomic.Pointer[gatherConn] // whose writes are guarded here; nil: they are not
	memory atomic.Pointer[connMemory] // that the handshake draws on; nil: it is over
}

// Read reads, and reserves memory for what a handshake brings.
func (c *belowTLS) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if memory := c.memory.Load(); memory != nil && n > 0 {
		if short := memory.readHandshake(n); short != nil {
			return n, short
		}
	}
	return n, err
}

// notHTTPS is what a peer is told that speaks HTTP where TLS is spoken, as net/http
// says it.
const notHTTPS = "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"

// failed notes an error of reading if it comes of the handshake.
func (s *tlsState) failed(l *Listener, err error) {
	if s.conn.ConnectionState().HandshakeComplete || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
		return
	}
	var notTLS tls.RecordHeaderError
	if errors.As(err, &notTLS) && notTLS.Conn != nil && speaksHTTP(notTLS.RecordHeader[:]) {
		_, _ = io.WriteString(notTLS.Conn, notHTTPS) // it is closed next in any case
	}
	if l.opts.NotHandshaken != nil {
		l.opts.NotHandshaken(s.conn.RemoteAddr(), err)
	}
}

func speaksHTTP(begins []byte) bool {
	for _, method := range []string{"GET /", "HEAD ", "POST ", "PUT /", "OPTIO", "PATCH", "DELET", "PRI *"} {
		if string(begins) == method {
			return true
		}
	}
	return false
}

// Write writes it all, for as long as there is progress.
func (c *belowTLS) Write(p []byte) (int, error) {
	if above := c.above.Load(); above != nil {
		return above.writeArmed(c.Conn, p)
	}
	return c.Conn.Write(p)
}

type connKey struct{}

// ConnContext is for http.Server: with it WithTLS finds the connection, and so does a
// Guard that has to close it.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	ctx = context.WithValue(ctx, netConn{}, c)
	if g, ok := c.(*gatherConn); ok && g.state.conn != nil {
		return context.WithValue(ctx, connKey{}, &g.state)
	}
	return ctx
}

// WithTLS returns a handler that sees the TLS of its requests where the listener
// keeps it from net/http. Whoever has sent a request is past the handshake.
func WithTLS(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if state, ok := r.Context().Value(connKey{}).(*tlsState); ok && r.TLS == nil {
			state.once.Do(func() { state.got = state.conn.ConnectionState() })
			r.TLS = &state.got
		}
		next.ServeHTTP(w, r)
	})
}
