package postgres

import (
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
)

// proxy forwards connections to a database.
type proxy struct {
	url   string
	close func()

	mu     sync.Mutex
	frozen chan struct{} // closed when the connections so far no longer forward
	conns  []net.Conn
}

func newProxy(t *testing.T, url string) *proxy {
	t.Helper()
	network, address, target := proxied(t, url)
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // of a test
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{url: fmt.Sprintf(target, listener.Addr()), frozen: make(chan struct{})}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial(network, address) //nolint:noctx // of a test
			if err != nil {
				_ = client.Close()
				continue
			}
			p.mu.Lock()
			frozen := p.frozen
			p.conns = append(p.conns, client, server)
			p.mu.Unlock()
			running.Go(func() { forward(server, client, frozen) })
			running.Go(func() { forward(client, server, frozen) })
		}
	})
	p.close = sync.OnceFunc(func() {
		_ = listener.Close()
		p.mu.Lock()
		for _, conn := range p.conns {
			_ = conn.Close()
		}
		p.mu.Unlock()
		running.Wait()
	})
	t.Cleanup(p.close)
	return p
}

// freeze makes the connections so far forward nothing. Their ends are not notified.
func (p *proxy) freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.frozen)
	p.frozen = make(chan struct{})
}

// forward copies until an end closes. After frozen is closed it drops what it reads.
func forward(to, from net.Conn, frozen <-chan struct{}) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		select {
		case <-frozen:
			_, _ = io.Copy(io.Discard, from)
			return
		default:
		}
		if err != nil {
			_ = to.Close()
			return
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// proxied returns the address of a database, and the format of its URL at another address.
func proxied(t testing.TB, url string) (network, address, target string) {
	t.Helper()
	config, err := parseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	c := config.ConnConfig
	network, address = "unix", fmt.Sprintf("%s/.s.PGSQL.%d", c.Host, c.Port)
	if c.Host[0] != '/' {
		network, address = "tcp", net.JoinHostPort(c.Host, fmt.Sprint(c.Port))
	}
	return network, address, "postgres://" + c.User + "@%s/" + c.Database + "?sslmode=disable"
}
