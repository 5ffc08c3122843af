package main_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// siegeVariable makes the test's own binary an attacker; its value is a siegePlan in JSON.
const siegeVariable = "USERD_SIEGE_ATTACK"

// siegeBegins is the line that an attacker prints when it starts.
const siegeBegins = "attack\n"

// siegePlan is the configuration of an attacker process.
type siegePlan struct {
	Attack, Addr, Token, Users string
	TLS                        bool
	Seconds                    float64
}

// attacker is the attacking process. It exits when its time is over.
type attacker struct {
	siegePlan

	ctx   context.Context //nolint:containedctx // the life of the process
	users []int64         // their ids; the first largeUsers of them are large

	mu     sync.Mutex
	counts map[string]int64
}

// runAttack is the attacker's main function.
func runAttack() error {
	a := &attacker{counts: make(map[string]int64)}
	if err := json.Unmarshal([]byte(os.Getenv(siegeVariable)), &a.siegePlan); err != nil {
		return err
	}
	text, err := os.ReadFile(a.Users)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &a.users); err != nil {
		return err
	}
	// The server's process may be stopped: the attacker must not outlive the test.
	d := time.Duration(a.Seconds * float64(time.Second))
	time.AfterFunc(d+10*time.Second, func() { os.Exit(1) })
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	a.ctx = ctx
	fmt.Print(siegeBegins)
	if err := attackNamed(a.Attack).run(a); err != nil && ctx.Err() == nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return json.NewEncoder(os.Stdout).Encode(a.counts)
}

func (a *attacker) count(what string, n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.counts[what] += int64(n)
}

// repeat runs n loops until the attack ends. A loop pauses after an error, so that rejections do
// not exhaust the attacker's own processor.
func (a *attacker) repeat(n int, loop func(i int) error) error {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			for a.ctx.Err() == nil {
				if err := loop(i); err != nil {
					text := err.Error()
					a.count("failed: "+text[strings.LastIndex(text, ": ")+1:], 1)
					a.pause(20 * time.Millisecond)
				}
			}
		})
	}
	all.Wait()
	return nil
}

func (a *attacker) pause(d time.Duration) {
	select {
	case <-a.ctx.Done():
	case <-time.After(d):
	}
}

// dial connects from an attacker's address: 127.0.0.2 or, for i > 0, another one.
func (a *attacker) dial(i int) (net.Conn, error) {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 1, byte(i/250), byte(2+i%250))}}
	conn, err := dialer.DialContext(a.ctx, "tcp", a.Addr)
	if err != nil {
		return nil, err
	}
	a.count("connections", 1)
	// The end of the attack unblocks all I/O.
	context.AfterFunc(a.ctx, func() { _ = conn.SetDeadline(time.Now()) })
	return conn, nil
}

// secure wraps the connection in TLS if the server uses it.
func (a *attacker) secure(conn net.Conn, protocol string) net.Conn {
	if !a.TLS {
		return conn
	}
	return tls.Client(conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}})
}

// peer opens an HTTP/2 connection.
func (a *attacker) peer(i int, settings ...http2.Setting) (*rawPeer, error) {
	conn, err := a.dial(i)
	if err != nil {
		return nil, err
	}
	p, err := newRawPeer(a.secure(conn, "h2"), settings...)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return p, nil
}

// drain reads frames to the end of the connection and acknowledges settings. ended, if not nil, is
// called at the end of each stream.
func (a *attacker) drain(p *rawPeer, ended func()) error {
	for {
		frame, err := p.ReadFrame()
		if err != nil && !errors.As(err, new(http2.StreamError)) {
			return err
		}
		over := false
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				if err := p.ack(); err != nil {
					return err
				}
			}
		case *http2.RSTStreamFrame:
			a.count("reset", 1)
			over = true
		case *http2.MetaHeadersFrame:
			over = frame.StreamEnded()
		case *http2.DataFrame:
			over = frame.StreamEnded()
		default:
		}
		if over {
			a.count("ended", 1)
			if ended != nil {
				ended()
			}
		}
	}
}

// streams are the concurrent calls of a connection, whose responses are not read.
type streams struct {
	conns, each int
	fields      []hpack.HeaderField
	body        []byte              // sent after the header; nil: none
	open        bool                // the request does not end
	window      uint32              // initial flow-control window of each stream
	trailers    []hpack.HeaderField // sent after the body, they end the request
	// addresses is the number of client addresses; 0: one.
	addresses int
}

// hold keeps the streams open and replaces each stream that ends.
func (a *attacker) hold(s streams) error {
	return a.repeat(s.conns, func(i int) error {
		from := 0
		if s.addresses > 0 {
			from = i % s.addresses
		}
		p, err := a.peer(from, http2.Setting{ID: http2.SettingInitialWindowSize, Val: s.window})
		if err != nil {
			return err
		}
		defer func() { _ = p.conn.Close() }() // the attack ends
		if s.window > 0 {
			if err := p.WriteWindowUpdate(0, 1<<30); err != nil {
				return err
			}
		}
		free := make(chan struct{}, s.each)
		for range s.each {
			free <- struct{}{}
		}
		gone := make(chan error, 1)
		go func() { gone <- a.drain(p, func() { offer(free) }) }()
		for id := uint32(1); ; id += 2 {
			select {
			case err := <-gone:
				return err
			case <-a.ctx.Done():
				return nil
			case <-free:
			}
			if err := p.call(id, s); err != nil {
				return err
			}
			a.count("streams", 1)
			if id > uint32(2*s.each) {
				a.pause(time.Millisecond) // retry after a rejection
			}
		}
	})
}

func offer(free chan struct{}) {
	select {
	case free <- struct{}{}:
	default:
	}
}

// call opens a stream, with a header block of any size.
func (p *rawPeer) call(id uint32, s streams) error {
	p.writing.Lock()
	defer p.writing.Unlock()
	p.header.Reset()
	for _, f := range s.fields {
		if err := p.packed.WriteField(f); err != nil {
			return err
		}
	}
	parts := slices.Collect(slices.Chunk(bytes.Clone(p.header.Bytes()), 16<<10))
	ends := s.body == nil && !s.open
	err := p.WriteHeaders(http2.HeadersFrameParam{
		StreamID: id, BlockFragment: parts[0], EndHeaders: len(parts) == 1, EndStream: ends,
	})
	for i, part := range parts[1:] {
		if err == nil {
			err = p.WriteContinuation(id, i == len(parts)-2, part)
		}
	}
	if err == nil && s.body != nil {
		err = p.WriteData(id, !s.open, s.body)
	}
	if err == nil && s.trailers != nil {
		err = p.trail(id, s.trailers)
	}
	return err
}

// trail sends trailers, a frame for each field.
func (p *rawPeer) trail(id uint32, fields []hpack.HeaderField) (err error) {
	for i, f := range fields {
		p.header.Reset()
		f.Sensitive = true // not indexed
		if err := p.packed.WriteField(f); err != nil {
			return err
		}
		last := i == len(fields)-1
		if i == 0 {
			err = p.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.header.Bytes(), EndHeaders: last, EndStream: true})
		} else {
			err = p.WriteContinuation(id, last, p.header.Bytes())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *rawPeer) ack() error {
	p.writing.Lock()
	defer p.writing.Unlock()
	return p.WriteSettingsAck()
}

// post returns the header of a call; more are pairs of names and values.
func (a *attacker) post(path, contentType string, more ...string) []hpack.HeaderField {
	fields := []hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"},
		{Name: ":authority", Value: "localhost"}, {Name: ":path", Value: path},
		{Name: "content-type", Value: contentType},
	}
	if strings.HasPrefix(contentType, "application/grpc") {
		fields = append(fields, hpack.HeaderField{Name: "te", Value: "trailers"})
	}
	return a.with(fields, more...)
}

func (a *attacker) get(path string, more ...string) []hpack.HeaderField {
	return a.with([]hpack.HeaderField{
		{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "http"},
		{Name: ":authority", Value: "localhost"}, {Name: ":path", Value: path},
	}, more...)
}

func (a *attacker) with(fields []hpack.HeaderField, more ...string) []hpack.HeaderField {
	if a.Token != "" {
		fields = append(fields, hpack.HeaderField{Name: "authorization", Value: "Bearer " + a.Token})
	}
	for i := 0; i < len(more); i += 2 {
		fields = append(fields, hpack.HeaderField{Name: more[i], Value: more[i+1]})
	}
	return fields
}

// client returns an HTTP client with one connection.
func (a *attacker) client(http1 bool) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(http1)
	protocols.SetUnencryptedHTTP2(!http1 && !a.TLS)
	protocols.SetHTTP2(!http1 && a.TLS)
	return &http.Client{Transport: &http.Transport{
		Protocols: protocols, DisableCompression: true,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		DialContext:     func(context.Context, string, string) (net.Conn, error) { return a.dial(0) },
	}}
}

// request is a request that is repeated.
type request struct {
	method, path string
	header       map[string]string
	body         func() io.Reader
}

// request sends a request and reads the body of the response.
func (a *attacker) request(client *http.Client, r request) error {
	scheme := "http://"
	if a.TLS {
		scheme = "https://"
	}
	var body io.Reader
	if r.body != nil {
		body = r.body()
	}
	req, err := http.NewRequestWithContext(a.ctx, r.method, scheme+a.Addr+r.path, body)
	if err != nil {
		return err
	}
	for name, value := range r.header {
		req.Header.Set(name, value)
	}
	if a.Token != "" {
		req.Header.Set("Authorization", "Bearer "+a.Token)
	}
	a.count("requests", 1)
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }() // fully read
	n, err := io.Copy(io.Discard, res.Body)
	a.count("bytes received", int(n))
	status := maps.Clone(res.Header)
	maps.Copy(status, res.Trailer)
	if code := status.Get("Grpc-Status"); res.StatusCode != http.StatusOK || code != "" && code != "0" {
		a.count(fmt.Sprintf("refused %d %s", res.StatusCode, code), 1)
		a.pause(time.Millisecond)
	}
	return err
}

// flood sends the request over conns connections, each concurrently per connection.
func (a *attacker) flood(conns, each int, http1 bool, r request) error {
	clients := make([]*http.Client, conns)
	for i := range clients {
		clients[i] = a.client(http1)
	}
	return a.repeat(conns*each, func(i int) error {
		err := a.request(clients[i%conns], r)
		return err
	})
}
