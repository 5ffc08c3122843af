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
	"github.com/yourorg/userservice/service/http2"
)

const (
	// maxRejecting is how many rejected connections linger at a time. Others are
	// closed at once.
	maxRejecting = 64
	// rejectPause is the pause of accepting after a rejection. Rejected clients may reconnect at
	// once and would use up the processor.
	rejectPause = time.Millisecond
	// peerPrefix is the length of the IPv6 prefix that identifies a peer, usually one customer.
	peerPrefix = 64
)

// ListenOptions are the limits of connections.
type ListenOptions struct {
	// StallTimeout closes a connection on which no byte can be written for so long.
	StallTimeout time.Duration
	// TLS enables TLS; nil: no TLS. The http.Server must not have TLS: Guard sets Request.TLS.
	TLS *tls.Config
	// Memory is the budget of connections; nil: no limit. Class is the class of unauthenticated
	// peers.
	Memory *budget.Budget
	Class  budget.Class
	// MaxAge is the age, plus or minus a tenth, after which a connection gets no new requests: HTTP/2
	// clients receive a GOAWAY, HTTP/1.1 connections end with their next response. After AgeGrace the
	// contexts of the calls that still run are canceled with AgeError, and soon the connection is
	// closed. 0: no limit.
	MaxAge, AgeGrace time.Duration
	AgeError         error
	// MaxConnections and MaxPerPeer limit the connections in total and per address, or per /64 of
	// IPv6. 0: no limit.
	MaxConnections, MaxPerPeer int
	// Exempt, if set, reports whether an address has no MaxPerPeer limit, like a trusted proxy.
	Exempt func(net.Addr) bool
	// Scheduler shares the processors among peers; nil: frames are handled at once.
	Scheduler *fair.Scheduler
	// Frames limits the control frames of connections of service/http2.
	Frames http2.FrameLimits
	// OnReject, if set, is called for each rejected connection, OnClose for each connection that
	// was closed because it exceeded a limit.
	OnReject func(peer net.Addr, reason RejectReason)
	OnClose  func(peer net.Addr, reason http2.CloseReason)
	// OnNoRequest, if set, is called for each HTTP/1 connection that ends with input but no request
	// for the handler: the input was not HTTP, or net/http rejected it with 400, 431, 501 or 505.
	OnNoRequest func(peer net.Addr, protocol string)
	// OnHandshakeError, if set, is called for each failed TLS handshake.
	OnHandshakeError func(peer net.Addr, err error)
}

// Listener limits connections and terminates TLS. Connections that are stalled or exceed a limit are closed.
type Listener struct {
	net.Listener

	opts      ListenOptions
	start     time.Time
	open      atomic.Int64
	rejecting chan struct{}
	closed    chan struct{}
	accepted  chan accepted
	starting  sync.Once
	closing   sync.Once

	mu     sync.Mutex
	peers  map[netip.Addr]map[*serverConn]struct{}
	parked parked
}

// Listen returns a listener with the limits.
func Listen(l net.Listener, opts ListenOptions) *Listener {
	return &Listener{
		Listener: l, opts: opts, start: time.Now(),
		rejecting: make(chan struct{}, maxRejecting), closed: make(chan struct{}),
		accepted: make(chan accepted), peers: make(map[netip.Addr]map[*serverConn]struct{}),
		parked: parked{byPeer: make(map[netip.Addr][]parkedConn)},
	}
}

// Close stops accepting. Open connections stay open.
func (l *Listener) Close() error {
	l.closing.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// Open returns the number of open connections.
func (l *Listener) Open() int64 { return l.open.Load() }

// accepted is a result of Accept.
type accepted struct {
	conn net.Conn
	err  error
}

// Accept returns the next connection within the limits. It blocks while memory is critically low.
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
		refusal := l.rejectReason(peer, l.opts.Exempt != nil && l.opts.Exempt(inner.RemoteAddr()))
		if refusal == "" && l.admit(inner, nil) != nil && !l.park(peer, inner) {
			refusal = RejectedMemory
		}
		if refusal != "" {
			l.reject(inner, refusal)
			time.Sleep(rejectPause)
		}
	}
}

// deliver passes a connection or an error to Accept. It returns false if the listener is closed.
func (l *Listener) deliver(conn net.Conn, err error) bool {
	select {
	case l.accepted <- accepted{conn, err}:
		return true
	case <-l.closed:
		return false
	}
}

// admit reserves memory for a connection and passes it to Accept. If there is no memory, it calls
// evict, if set, and tries once more.
func (l *Listener) admit(inner net.Conn, evict func(*serverConn, error) bool) error {
	conn := l.newConn(inner)
	err := l.reserve(conn)
	if err != nil && evict != nil && evict(conn, err) {
		err = l.reserve(conn)
	}
	if err != nil {
		return err
	}
	l.open.Add(1)
	l.add(conn)
	conn.onClose = func() { l.remove(conn) }
	if !l.deliver(conn, nil) {
		_ = conn.Close() // the listener is closed
	}
	return nil
}

func (l *Listener) newConn(inner net.Conn) *serverConn {
	if l.opts.TLS == nil {
		return newServerConn(inner, l)
	}
	raw := &rawConn{Conn: inner}
	secure := tls.Server(raw, l.opts.TLS)
	conn := newServerConn(secure, l)
	conn.tls.conn, conn.tls.raw = secure, raw
	raw.handshake.Store(conn)
	return conn
}

// RejectReason is the limit that rejects a connection.
type RejectReason string

// Reasons for rejecting a connection.
const (
	RejectedTotal   RejectReason = "too_many"
	RejectedPerPeer RejectReason = "too_many_of_peer"
	RejectedMemory  RejectReason = "memory"
)

// RejectReasons returns all reasons.
func RejectReasons() []RejectReason {
	return []RejectReason{RejectedTotal, RejectedPerPeer, RejectedMemory}
}

// rejectReason returns why a connection of the peer is rejected; empty: it is not. An exempt peer
// has no limit of its own.
func (l *Listener) rejectReason(peer netip.Addr, exempt bool) RejectReason {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.opts.MaxConnections > 0 && l.open.Load()+int64(l.parked.count) >= int64(l.opts.MaxConnections):
		return RejectedTotal
	case l.opts.MaxPerPeer > 0 && !exempt && len(l.peers[peer])+len(l.parked.byPeer[peer]) >= l.opts.MaxPerPeer:
		return RejectedPerPeer
	}
	return ""
}

// peerOf returns the key of a peer in limits; the port of the address is optional.
func peerOf(addr string) netip.Addr {
	addrPort, err := netip.ParseAddrPort(addr)
	ip := addrPort.Addr()
	if err != nil {
		if ip, err = netip.ParseAddr(addr); err != nil {
			return netip.Addr{} // unknown addresses share one key
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

// Peer returns the key of a peer in limits: its address, or the /64 prefix of IPv6.
func Peer(addr string) string { return peerOf(addr).String() }

func (l *Listener) reportClose(c net.Conn, reason http2.CloseReason) {
	if l.opts.OnClose != nil {
		l.opts.OnClose(c.RemoteAddr(), reason)
	}
}

// reject closes a connection over a limit. It first sends a response in the client's protocol, if
// the client sends its first bytes within lingerTimeout.
func (l *Listener) reject(conn net.Conn, reason RejectReason) {
	if l.opts.OnReject != nil {
		l.opts.OnReject(conn.RemoteAddr(), reason)
	}
	select {
	case l.rejecting <- struct{}{}:
	default:
		_ = conn.Close()
		return
	}
	go func() {
		defer func() { <-l.rejecting }()
		defer func() { _ = conn.Close() }()
		if l.opts.TLS != nil {
			return // a handshake would cost too much
		}
		if conn.SetDeadline(time.Now().Add(lingerTimeout)) != nil {
			return
		}
		start := make([]byte, maxLingerBytes>>10)
		n, _ := conn.Read(start)
		if _, err := conn.Write(rejection(start[:n])); err != nil {
			return
		}
		if half, ok := conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
			for n := 1; n > 0; { // until the client closes, or the deadline
				n, _ = conn.Read(start)
			}
		}
	}()
}

// rejection returns the response for a connection that starts with these bytes.
func rejection(start []byte) []byte {
	if !bytes.HasPrefix(start, prefaceStart) {
		return []byte("HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\n" +
			"Content-Type: text/plain; charset=utf-8\r\nContent-Length: 21\r\n\r\ntoo many connections\n")
	}
	return goAway(errEnhanceYourCalm, "too_many_connections")
}

// tlsState is the TLS state of a connection.
type tlsState struct {
	conn  *tls.Conn
	raw   *rawConn
	once  sync.Once
	state tls.ConnectionState
}

// rawConn is a connection below TLS. It applies the stall timeout, because crypto/tls fails
// permanently after a write deadline, even if part of the data was written.
type rawConn struct {
	net.Conn

	owner     atomic.Pointer[serverConn] // applies its stall timeout to writes; nil: no timeout
	handshake atomic.Pointer[serverConn] // charged for the handshake; nil: the handshake is complete
}

// Read reads. During the handshake it reserves memory, and acquires the slot of the peer for what follows: verifying the
// certificates of a client can take seconds.
func (c *rawConn) Read(p []byte) (int, error) {
	above := c.handshake.Load()
	if above == nil {
		return c.Conn.Read(p)
	}
	above.slot.Release()
	n, err := c.Conn.Read(p)
	if n > 0 {
		if noMemory := above.memory.readHandshake(n); noMemory != nil {
			return n, noMemory
		}
		if above.slot.Acquire(); above.closing.Load() {
			return n, net.ErrClosed // the slot is closed: nothing may run without it
		}
	}
	return n, err
}

// notHTTPS is the response of net/http to an HTTP request over a TLS port.
const notHTTPS = "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"

// handshakeFailed reports an error of a read during the handshake.
func (s *tlsState) handshakeFailed(l *Listener, err error) {
	if s.conn.ConnectionState().HandshakeComplete || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
		return
	}
	var notTLS tls.RecordHeaderError
	if errors.As(err, &notTLS) && notTLS.Conn != nil && looksLikeHTTP(notTLS.RecordHeader[:]) {
		_, _ = io.WriteString(notTLS.Conn, notHTTPS) // the connection is closed next in any case
	}
	if l.opts.OnHandshakeError != nil {
		l.opts.OnHandshakeError(s.conn.RemoteAddr(), err)
	}
}

func looksLikeHTTP(start []byte) bool {
	for _, method := range []string{"GET /", "HEAD ", "POST ", "PUT /", "OPTIO", "PATCH", "DELET", "PRI *"} {
		if string(start) == method {
			return true
		}
	}
	return false
}

// Write writes p with the stall timeout, and without the slot of the handshake, because it can block.
func (c *rawConn) Write(p []byte) (int, error) {
	if above := c.handshake.Load(); above != nil {
		above.slot.Release()
	}
	if above := c.owner.Load(); above != nil {
		return above.writeChecked(c.Conn, p)
	}
	return c.Conn.Write(p)
}

// ConnContext is for http.Server.ConnContext. Guard gets the connection from the context.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	conn, ok := c.(*serverConn)
	if ok && conn.hasAge() {
		bounded, cancel := context.WithCancelCause(ctx)
		conn.cancel.Store(&cancel)
		ctx = bounded
	}
	ctx = context.WithValue(ctx, connKey{}, c)
	if ok {
		conn.base = ctx
	}
	return ctx
}

// setTLS sets the TLS state of a request, which net/http does not know because the listener terminates TLS.
func (c *serverConn) setTLS(r *http.Request) {
	if c.tls.conn == nil || r.TLS != nil {
		return
	}
	state := &c.tls
	state.once.Do(func() { state.state = state.conn.ConnectionState() })
	r.TLS = &state.state
}
