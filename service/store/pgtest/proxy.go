package pgtest

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// Proxy forwards TCP connections to a database, and injects faults of the network.
type Proxy struct {
	URL string // of the database through the proxy

	network, address string
	listener         net.Listener
	running          sync.WaitGroup
	close            func()

	mu      sync.Mutex
	conns   []net.Conn
	frozen  chan struct{} // closed when the connections so far forward nothing more
	healed  chan struct{} // closed while there is no partition
	every   int           // the response of each so many commits is lost; 0: of none
	commits int           // since LoseCommits
}

// NewProxy starts a proxy that runs until the test ends, or until Close.
func NewProxy(t testing.TB, url string) *Proxy {
	t.Helper()
	p := &Proxy{frozen: make(chan struct{}), healed: make(chan struct{})}
	close(p.healed)
	var target string
	p.network, p.address, target = Proxied(t, url)
	var err error
	if p.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil { //nolint:noctx // of a test
		t.Fatal(err)
	}
	p.URL = fmt.Sprintf(target, p.listener.Addr())
	p.running.Go(p.accept)
	p.close = sync.OnceFunc(p.end)
	t.Cleanup(p.close)
	return p
}

// Proxied returns the address of a database, and the format of its URL at another address.
func Proxied(t testing.TB, url string) (network, address, target string) {
	t.Helper()
	c, err := pgconn.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	network, address = pgconn.NetworkAddress(c.Host, c.Port)
	return network, address, "postgres://" + c.User + "@%s/" + c.Database + "?sslmode=disable"
}

// Close closes the connections and ends the proxy.
func (p *Proxy) Close() { p.close() }

func (p *Proxy) end() {
	_ = p.listener.Close()
	p.Heal()
	p.mu.Lock()
	for _, conn := range p.conns {
		_ = conn.Close()
	}
	p.mu.Unlock()
	p.running.Wait()
}

// Freeze makes the connections so far forward nothing more. Their ends are not notified.
func (p *Proxy) Freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.frozen)
	p.frozen = make(chan struct{})
}

// Partition holds back all bytes, also of new connections, until Heal.
func (p *Proxy) Partition() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.healed = make(chan struct{})
}

// Heal ends a partition.
func (p *Proxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.healed:
	default:
		close(p.healed)
	}
}

// LoseCommits closes the connection in place of the response of each n-th commit. 0 ends that.
func (p *Proxy) LoseCommits(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.every = n
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial(p.network, p.address) //nolint:noctx // of a test
		if err != nil {
			_ = client.Close()
			continue
		}
		p.mu.Lock()
		frozen := p.frozen
		p.conns = append(p.conns, client, server)
		p.mu.Unlock()
		p.running.Go(func() { p.forward(server, client, frozen) })
		p.running.Go(func() { p.forward(client, server, frozen) })
	}
}

// forward copies until an end closes.
func (p *Proxy) forward(to, from net.Conn, frozen <-chan struct{}) {
	defer func() { _ = to.Close() }()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		<-p.connected()
		select {
		case <-frozen:
			_, _ = io.Copy(io.Discard, from)
			return
		default:
		}
		if err != nil || p.loses(buffer[:n]) {
			_ = from.Close()
			return
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// connected returns a channel that is closed while there is no partition.
func (p *Proxy) connected() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.healed
}

// committed is the message CommandComplete of a commit.
var committed = []byte("C\x00\x00\x00\x0bCOMMIT\x00")

// loses reports whether bytes contain the response of a commit that is to be lost.
func (p *Proxy) loses(b []byte) bool {
	if !bytes.Contains(b, committed) {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.every == 0 {
		return false
	}
	p.commits++
	return p.commits%p.every == 0
}
